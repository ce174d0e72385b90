"""Working on a phase from the workstation: the same command on every host, ``python3 -m provision``."""

from __future__ import annotations

from underlay.errors import NotReady, Problem
from underlay.hosts.base import Host, Lab
from underlay.hosts.layout import PLAN_FILE
from underlay.process import Completed
from underlay.topology import Plan, render_plan

#: A phase waits for many programs, one after the other; each has the plan's `ready`.
_WAITS = 4


def provision(plan: Plan, host: Host, *words: str) -> Completed:
    """Run ``python3 -m provision WORDS`` on a host and return what it said; its exit code tells how it went."""
    if not host.running():
        raise NotReady(Problem(host.name, "it is off", "bring it up: ./lab up"))
    return host.run(("python3", "-m", "provision", *words), check=False, timeout=plan.timeouts.ready * _WAITS)


def tell_plan(lab: Lab, plan: Plan) -> None:
    """Give every host the plan, so that what it does next follows it."""
    text = render_plan(plan)
    for host in lab.hosts.values():
        if host.running():
            host.run(("tee", PLAN_FILE), stdin=text)
