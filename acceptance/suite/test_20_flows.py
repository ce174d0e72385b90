"""The flow matrix: who may connect to whom, and that it is the deny rule that stops all others."""

from __future__ import annotations

import pytest

from acceptance.suite import flows
from acceptance.suite.flows import ICMP, OTHER, UDP, Matrix, Pair
from acceptance.suite.stage import Stage
from underlay.topology import Tier


def test_flow(matrix: Matrix, pair: Pair, stage: Stage) -> None:
    flows.assert_flow(matrix, pair, stage)


def test_other_port_is_denied(matrix: Matrix, pair: Pair, stage: Stage) -> None:
    """Also between those who may connect: only the service's own port is open. Something listens there."""
    matrix.own[OTHER, pair.target.name].assert_connected()
    stage.assert_denied(matrix.of(OTHER, pair))


def test_udp_is_denied(matrix: Matrix, pair: Pair, stage: Stage) -> None:
    matrix.own[UDP, pair.target.name].assert_connected()
    stage.assert_denied(matrix.of(UDP, pair))
    strangers = matrix.heard_from(pair)
    assert strangers == [], f"{pair.target.name}: expected: heard only itself; seen: {strangers}"


def test_ping_is_denied(matrix: Matrix, pair: Pair, stage: Stage) -> None:
    matrix.own[ICMP, pair.target.name].assert_connected()
    stage.assert_denied(matrix.of(ICMP, pair))


def test_neighbours_on_one_bridge(matrix: Matrix, crowded_tier: Tier, stage: Stage) -> None:
    """A bridged frame never passes the host's routing: rules match it only if the kernel is told to show it to them."""
    names = {crowded_tier.name}
    pairs = [
        pair for pair in flows.all_pairs(stage.plan) if {pair.source.service.tier, pair.target.service.tier} == names
    ]
    denied = [pair for pair in pairs if not pair.allowed]
    if not denied:
        pytest.skip(f"in {crowded_tier.name} everybody may connect to everybody")
    for pair in pairs:
        flows.assert_flow(matrix, pair, stage)
