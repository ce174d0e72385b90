"""What Phase 3 alone measures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from acceptance.modules import LabHost
from acceptance.phase3.stage import ByTunnel
from acceptance.suite.flows import all_pairs
from acceptance.suite.stage import Seat, Stage
from underlay.topology.tunnel import DEVICE


@pytest.fixture(scope="session")
def tunnel(stage: Stage) -> ByTunnel:
    """Return the stage, which is one of a tunnel."""
    assert isinstance(stage, ByTunnel)
    if len(stage.stretched.bridges) < 2:
        pytest.skip("by the plan nobody talks through the tunnel")
    return stage


@pytest.fixture(scope="session")
def ends(tunnel: ByTunnel) -> Mapping[str, LabHost]:
    """Return the hosts that the tunnel joins."""
    return tunnel.ends()


@pytest.fixture(scope="session")
def caller(way: tuple[Seat, Seat]) -> Seat:
    """Return the first who calls through the tunnel."""
    return way[0]


@pytest.fixture(scope="session")
def called(way: tuple[Seat, Seat]) -> Seat:
    """Return the first whom that one calls, on another host."""
    return way[1]


@pytest.fixture(scope="session")
def way(tunnel: ByTunnel) -> tuple[Seat, Seat]:
    """Return the first two who talk through the tunnel: some callers may stand on the host of those whom they call."""
    seats = {seat.name: seat for seat in tunnel.seats()}
    pairs = ((seats[pair.source.name], seats[pair.target.name]) for pair in all_pairs(tunnel.plan) if pair.allowed)
    found = next(((source, target) for source, target in pairs if source.host != target.host), None)
    return found or pytest.skip("by the plan nobody talks through the tunnel")


@pytest.fixture
def served(tunnel: ByTunnel) -> Iterator[None]:
    """Have something answer at each service's port."""
    with tunnel.serving():
        yield


@pytest.fixture(scope="session")
def wires(ends: Mapping[str, LabHost]) -> Mapping[str, str]:
    """Return each end's link to the other hosts, by the host's name."""
    return {name: end.vxlan(DEVICE).underlay for name, end in ends.items()}
