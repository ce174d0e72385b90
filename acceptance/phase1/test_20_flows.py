"""The flow matrix: who may connect to whom, and that it is the deny rule that stops all others."""

from __future__ import annotations

import pytest

from acceptance.phase1 import flows
from acceptance.phase1.flows import ICMP, OTHER, SERVICE, UDP, Matrix, Pair
from underlay.topology import Plan, Tier


def test_flow(matrix: Matrix, pair: Pair, plan: Plan) -> None:
    flows.assert_flow(matrix, pair, plan)


def test_other_port_is_denied(matrix: Matrix, pair: Pair, plan: Plan) -> None:
    """Also between those who may connect: only the service's own port is open. Something listens there."""
    matrix.own[OTHER, pair.target.name].assert_connected()
    matrix.of(OTHER, pair).assert_refused(plan.timeouts.connect)


def test_udp_is_denied(matrix: Matrix, pair: Pair) -> None:
    matrix.own[UDP, pair.target.name].assert_connected()
    matrix.of(UDP, pair).assert_dropped()
    strangers = [peer for peer in matrix.heard[pair.target.name] if not peer.startswith(f"{pair.target.ip}:")]
    assert strangers == [], f"{pair.target.name}: expected: heard only itself; seen: {strangers}"


def test_ping_is_denied(matrix: Matrix, pair: Pair) -> None:
    matrix.own[ICMP, pair.target.name].assert_connected()
    matrix.of(ICMP, pair).assert_dropped()


def test_neighbours_on_one_bridge(matrix: Matrix, crowded_tier: Tier, plan: Plan) -> None:
    """A bridged frame never passes the host's routing: rules match it only if the kernel is told to show it to them."""
    names = {crowded_tier.name}
    pairs = [pair for pair in flows.all_pairs(plan) if {pair.source_service.tier, pair.target_service.tier} == names]
    denied = [pair for pair in pairs if not pair.allowed]
    if not denied:
        pytest.skip(f"in {crowded_tier.name} everybody may connect to everybody")
    for pair in pairs:
        flows.assert_flow(matrix, pair, plan)
        assert matrix.of(SERVICE, pair).attempt.address == str(pair.target.ip)
