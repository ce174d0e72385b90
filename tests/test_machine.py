from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.plans import shop
from underlay import machine

# As a host on a little-endian machine shows it: proc_net(5). Default, 10.77.0.0/16, 172.17.0.0/16 and one address.
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t00004D0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t0102000A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
"""


def test_routes_are_read_without_the_default_route() -> None:
    assert list(machine.routes(ROUTES)) == [
        IPv4Network("10.77.0.0/16"),
        IPv4Network("172.17.0.0/16"),
        IPv4Network("10.0.2.1/32"),
    ]


def test_collision_with_a_route_of_this_machine_is_noted() -> None:
    plan = shop.plan()
    own = next(machine.routes(Path("/proc/net/route").read_text()), None)
    if own is None:
        pytest.skip("this machine has no route that a plan could collide with")
    tier = replace(plan.tiers[0], name="taken", subnet=own)
    (note,) = [note for note in machine.collisions(replace(plan, tiers=(tier,))) if "taken" in note]
    assert note == f"tier taken ({own}) overlaps a route of this machine ({own})"


def test_machine_without_routes() -> None:
    assert list(machine.routes("Iface\tDestination\n")) == []
    assert list(machine.routes("")) == []
