"""The machine that the lab stands on: where its own addresses are."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

from underlay.topology import Plan


def collisions(plan: Plan) -> Iterator[str]:
    """Say which of the plan's subnets this machine has a route into already.

    Namespace hosts have routes of their own, so this is a note, not an error: it matters when the same plan is used
    with virtual machines, or when a person wonders which of two networks answered.
    """
    planned = {f"tier {tier.name}": tier.subnet for tier in plan.tiers}
    planned |= {"the tunnel": plan.tunnel.subnet, "Docker's pool": plan.pools.docker, "Swarm's pool": plan.pools.swarm}
    for route in routes(Path("/proc/net/route").read_text()):
        for name, subnet in planned.items():
            if subnet.overlaps(route):
                yield f"{name} ({subnet}) overlaps a route of this machine ({route})"


def routes(text: str) -> Iterator[IPv4Network]:
    """Read the destinations of /proc/net/route (proc_net(5): hexadecimal, in host byte order) but the default route."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        destination, mask = (int(fields[column], 16).to_bytes(4, "little") for column in (1, 7))
        if any(mask):
            yield IPv4Network((destination, ".".join(map(str, mask))))
