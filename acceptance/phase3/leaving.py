"""Who of the other phases may go out by way of a host of the tunnel, and so has its address elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from acceptance.provisioning import PROGRAM, phases_on
from underlay.hosts.base import Machine
from underlay.topology import Plan, in_containers


@dataclass(frozen=True, slots=True)
class Leaver:
    """A replica of another phase: its name there, and the words that put a program of the host's into its network."""

    name: str
    enter: tuple[str, ...]


def leavers(plan: Plan, host: Machine) -> Iterator[Leaver]:
    """Yield those on a host; ``plan`` is the lab's."""
    on = phases_on(host, PROGRAM)
    if "phase1" in on:
        for service in plan.services_on(host.name):
            if service.egress:
                for item in service.replicas:
                    yield Leaver(f"{item.name} of phase 1", ("ip", "netns", "exec", item.namespace))
    containers = in_containers(plan)
    if "phase2" in on and containers.host == host.name:
        names = [item.name for service in plan.services if service.egress for item in service.replicas]
        done = host.run(["python3", "-m", "acceptance.containers"], stdin=json.dumps(names))
        for name, said in json.loads(done.stdout).items():
            yield Leaver(f"{name} of phase 2", ("nsenter", f"--net=/proc/{said['State']['Pid']}/ns/net", "--"))
