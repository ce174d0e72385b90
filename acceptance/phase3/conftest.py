"""What Phase 3 alone measures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from acceptance.modules import LabHost
from acceptance.phase3.stage import ByTunnel
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
def caller(tunnel: ByTunnel) -> Seat:
    """Return the first who calls through the tunnel."""
    source = tunnel.plan.flows[0].source
    return next(seat for seat in tunnel.seats() if seat.service.name == source)


@pytest.fixture(scope="session")
def called(tunnel: ByTunnel) -> Seat:
    """Return the first whom that one calls."""
    target = tunnel.plan.flows[0].target
    return next(seat for seat in tunnel.seats() if seat.service.name == target)


@pytest.fixture
def served(tunnel: ByTunnel) -> Iterator[None]:
    """Have something answer at each service's port."""
    with tunnel.serving():
        yield


@pytest.fixture(scope="session")
def wires(ends: Mapping[str, LabHost]) -> Mapping[str, str]:
    """Return each end's link to the other hosts, by the host's name."""
    return {name: end.vxlan(DEVICE).underlay for name, end in ends.items()}
