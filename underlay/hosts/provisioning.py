"""Working on a phase from the workstation: the same command on every host, ``python3 -m provision``."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from underlay import process
from underlay.errors import NotReady, Problem
from underlay.hosts.base import Host
from underlay.hosts.layout import PLAN_FILE, SECRET_FILE, SHOP_DIRECTORY
from underlay.process import Completed
from underlay.progress import Progress
from underlay.topology import Plan, render_plan

#: A phase waits for many programs, one after the other; each has the plan's `ready`.
WAITS = 4
#: Takes two files in whole or not at all: a power cut or a broken connection leaves those that were there. Arguments:
#: the plan's path, its digest, the secret's path; the secret is the first line that is read, the plan the rest.
#: `sync FILE` is fsync(2) of that file or directory (sync(1)).
_TAKE = """\
set -e
IFS= read -r secret
mkdir -p "${1%/*}" "${3%/*}"
cat >"$1.new"
echo "$2  $1.new" | sha256sum --check --status
(umask 077 && printf %s "$secret" >"$3.new")
sync "$1.new" "$3.new"
mv "$3.new" "$3"
mv "$1.new" "$1"
sync "${1%/*}"
"""
#: Takes an archive of the shop's images in whole or not at all. The argument is the directory; the archive, whose files
#: are root's, is what it reads. All of it is on the disk before it has its name.
_TAKE_IMAGES = """\
set -e
rm -rf "$1.new"
mkdir -p "$1.new"
tar --extract --no-same-owner --directory "$1.new"
chmod -R u=rwX,go=rX "$1.new"
sync --file-system "$1.new"
rm -rf "$1"
mv "$1.new" "$1"
sync "${1%/*}"
"""


def provision(plan: Plan, host: Host, *words: str) -> Completed:
    """Run ``python3 -m provision WORDS`` on a host and return what it said; its exit code tells how it went."""
    if not host.running():
        raise NotReady(Problem(host.name, "it is off", "bring it up: ./lab up, or ./lab vagrant up"))
    return host.run(("python3", "-m", "provision", *words), check=False, timeout=plan.timeouts.ready * WAITS)


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


def give_images(host: Host, directory: Path, progress: Progress, *, timeout: float) -> None:
    """Give a host the shop's images that lie in ``directory``, unless it has these.

    ``timeout`` is in seconds. Raises as ``Host.run`` does.
    """
    manifest = directory / "manifest.json"
    there = host.run(["cat", f"{SHOP_DIRECTORY}/{manifest.name}"], check=False)
    if there.ok and there.stdout == manifest.read_text():
        return
    progress.step(f"giving {host.name} the shop's images")
    # It has no name: however this process ends, nothing stays of it.
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name in ("registry", manifest.name):
                archive.add(directory / name, arcname=name)
        file.flush()
        argv = host.argv(("sh", "-c", _TAKE_IMAGES, "sh", SHOP_DIRECTORY))
        process.run(argv, timeout=timeout, stdin=Path(f"/proc/self/fd/{file.fileno()}"), where=host.name)
