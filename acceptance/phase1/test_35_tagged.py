"""Frames with a VLAN tag, which no rule of iptables sees, open nothing."""

from __future__ import annotations

from acceptance.suite.stage import Stage
from acceptance.suite.tagged import assert_no_way, neighbours


def test_a_tag_before_a_denied_packet_opens_no_way(stage: Stage) -> None:
    pairs = list(neighbours(stage))
    assert pairs, "expected: by the plan two replicas share a bridge; seen: none"
    for source, target in pairs:
        assert_no_way(stage, source, target)
