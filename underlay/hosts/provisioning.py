"""Working on a phase from the workstation: the same command on every host, ``python3 -m provision``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from underlay.errors import NotReady, Problem
from underlay.hosts.base import Host
from underlay.hosts.layout import PLAN_FILE, SECRET_FILE
from underlay.process import Completed
from underlay.topology import Plan, render_plan

#: A phase waits for many programs, one after the other; each has the plan's `ready`.
_WAITS = 4
#: Takes two files in whole or not at all: a power cut or a broken connection leaves those that were there. Arguments:
#: the plan's path, its digest, the secret's path; the secret is the first line that is read, the plan the rest.
#: `sync FILE` is fsync(2) of that file or directory (sync(1)).
_TAKE = """\
set -e
IFS= read -r secret
cat >"$1.new"
echo "$2  $1.new" | sha256sum --check --status
(umask 077 && printf %s "$secret" >"$3.new")
sync "$1.new" "$3.new"
mv "$3.new" "$3"
mv "$1.new" "$1"
sync "${1%/*}"
"""


def provision(plan: Plan, host: Host, *words: str) -> Completed:
    """Run ``python3 -m provision WORDS`` on a host and return what it said; its exit code tells how it went."""
    if not host.running():
        raise NotReady(Problem(host.name, "it is off", "bring it up: ./lab up, or ./lab vagrant up"))
    return host.run(("python3", "-m", "provision", *words), check=False, timeout=plan.timeouts.ready * _WAITS)


def plan_digest(plan: Plan) -> str:
    """Return what tells a plan from another one: the SHA-256 of the text that hosts are told."""
    return hashlib.sha256(render_plan(plan).encode()).hexdigest()


def tell(hosts: Iterable[Host], plan: str, secret: str) -> None:
    """Give hosts that are on the plan on record, durably, so that what they do next, and after a power cut, follows it.

    The lab's secret comes with it: a host that has lost it, or has another one, would derive other passwords than the
    others do. A host that is off is left out. Raises as ``Host.run`` does.
    """
    command = ("sh", "-c", _TAKE, "sh", PLAN_FILE, hashlib.sha256(plan.encode()).hexdigest(), SECRET_FILE)
    both = f"{secret.strip()}\n{plan}"
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: host.run(command, stdin=both), [host for host in hosts if host.running()]))
