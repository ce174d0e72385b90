"""Rules as iptables-save prints them, among those of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.kernel.network import Network
from provision.marks import Mark, Places
from provision.resources.rules import Chain, Jump, Table, discover
from provision.supervisor import Supervisor
from provision.system import System
from underlay.process import Completed
from underlay.topology import Timeouts

_OURS = '-A INPUT -i br-data -m comment --comment "underlay phase1" -j PHASE1-GUARD'
_TABLE = Table("filter", (Chain("PHASE1-GUARD", ("-j DROP",)),), (Jump("INPUT", "PHASE1-GUARD", "-i br-data"),))


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What iptables-save prints of the filter table, line by line; iptables-restore succeeds."""
    lines = [":INPUT ACCEPT [0:0]", ":PHASE1-GUARD - [0:0]", _OURS, "-A PHASE1-GUARD -j DROP"]

    def run(argv: tuple[str, ...], **options: object) -> Completed:
        return Completed(argv, 0, "\n".join(["*filter", *lines, "COMMIT", ""]), "", 0.0)

    monkeypatch.setattr("provision.system.run", run)
    return lines


@pytest.fixture
def system(tmp_path: Path) -> System:
    mark = Mark("phase1", 1, Places(tmp_path / "settings", tmp_path / "state", tmp_path / "run"))
    timeouts = Timeouts(connect=1, command=1, ready=1, cache=1)
    return System("host1", mark, timeouts, Network("host1"), Supervisor("host1", 1, tmp_path / "socket"))


def test_as_planned(saved: list[str], system: System) -> None:
    assert _TABLE.observe(system) is None


def test_a_rule_of_others_without_words_only_counts(saved: list[str], system: System) -> None:
    """`iptables -A INPUT` is a rule: it matches every packet and decides nothing."""
    saved.insert(2, "-A INPUT")
    assert _TABLE.observe(system) is None
    assert [found.identity for found in discover(system, frozenset())] == ["iptables filter"]


def test_a_rule_without_words_in_a_chain_of_ours_is_a_difference(saved: list[str], system: System) -> None:
    saved.append("-A PHASE1-GUARD")
    assert _TABLE.observe(system) == "PHASE1-GUARD has a rule that the plan does not have: one without words"


def test_a_rule_of_others_that_decides_before_ours_is_a_difference(saved: list[str], system: System) -> None:
    saved.insert(2, "-A INPUT -j ACCEPT")
    assert _TABLE.observe(system) == "INPUT asks a rule of others before it leads to ours: -j ACCEPT"
