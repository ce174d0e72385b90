"""Labs of namespace hosts as they stand on record: found for real, without root, and with nothing behind them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from underlay.hosts.namespace import power
from underlay.hosts.namespace.machines import NamespaceLab
from underlay.hosts.namespace.processes import identify
from underlay.hosts.namespace.state import HostState, LabState, Store
from underlay.topology import Plan, render_plan

IMAGE, CHECKOUT = Path("/images/one"), Path("/checkout")


def record(directory: Path, plan: Plan, on: Iterable[str] = ()) -> NamespaceLab:
    """Put a lab on record below a state directory. A host that is ``on`` has this process for its first one."""
    store = Store(directory / "labs" / plan.lab)
    store.directory.mkdir(parents=True)
    store.make_secret()
    me, running = identify(os.getpid()), set(on)
    hosts = tuple(
        HostState(
            host.name, power.host_digest(plan, host, IMAGE, CHECKOUT), me if host.name in running else None
        )
        for host in plan.hosts
    )  # fmt: skip
    store.write(
        LabState(
            lab=plan.lab,
            plan_text=render_plan(plan),
            image=str(IMAGE),
            repository=str(CHECKOUT),
            wire=power.wire_digest(plan),
            cgroups=(),
            hosts=hosts,
        )
    )
    return NamespaceLab(store, plan)
