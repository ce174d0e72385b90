"""An end by itself: while it is not of the tunnel, and when its power was cut."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from acceptance.phase3.leaving import leavers
from acceptance.phase3.peers import assert_nothing_comes
from acceptance.phase3.stage import ByTunnel
from acceptance.provisioning import PROGRAM, Report, phases_on, provision, settled
from acceptance.suite import flows
from acceptance.suite.stage import Seat

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds


@pytest.fixture(scope="module")
def booted(tunnel: ByTunnel, called: Seat) -> Mapping[str, Report]:
    """Cut the power of the host of those who are called, and ask both ends when it has started by itself."""
    host = tunnel.machine(called)
    host.power_off()
    host.power_on()
    settled(host, tunnel.plan)
    try:
        return {name: provision(end.machine, "check", tunnel.phase) for name, end in tunnel.ends().items()}
    finally:
        for phase in sorted(phases_on(host, PROGRAM)):
            provision(host, "converge", phase)


def test_tunnel_is_back_after_a_power_cut(booted: Mapping[str, Report], tunnel: ByTunnel) -> None:
    for name, report in booted.items():
        assert report.exit_code == 0, f"{name}: expected: 0 differences; seen: {report}"
    flows.assert_all(tunnel)


def test_who_goes_out_by_way_of_a_host_that_is_no_end_any_more_puts_nothing_in(tunnel: ByTunnel) -> None:
    """The other end still believes that host's address, and it has no guard of this phase: as while it boots."""
    found = {name: list(leavers(tunnel.lab.plan, end.machine)) for name, end in tunnel.ends().items()}
    if not any(found.values()):
        pytest.skip("nobody of another phase may go out by way of an end")
    for name, leaving in found.items():
        end, goal = tunnel.ends()[name], tunnel.seats(tunnel.other(name).name)[0]
        try:
            removed = provision(end.machine, "remove", tunnel.phase)
            assert removed.exit_code == 0, f"{name}: expected: phase 3 is gone; seen: {removed}"
            for who in leaving:
                assert_nothing_comes(tunnel, goal, end, end.machine, who.enter)
        finally:
            made = provision(end.machine, "converge", tunnel.phase)
        assert made.exit_code == 0, f"{name}: expected: made again; seen: {made}"
