"""Rules as iptables-save prints them, among those of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.kernel.network import Network
from provision.marks import Mark, Places
from provision.resource import Feed
from provision.resources.rules import Chain, Jump, Table, discover, restore
from provision.supervisor import Supervisor
from provision.system import System
from underlay.errors import NotReady, Problem
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


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ([], "INPUT lacks what leads to ours: "),
        ([_OURS, _OURS.replace("br-data", "br-x")], "INPUT leads to ours by what the plan does not have: -i br-x"),
        ([_OURS, _OURS], "INPUT leads to ours in another order, or twice"),
    ],
)
def test_what_leads_to_ours_is_told_by_the_rule_that_differs(
    saved: list[str], system: System, seen: list[str], said: str
) -> None:
    saved[2:3] = seen
    assert str(_TABLE.observe(system)).startswith(said)


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


@pytest.mark.parametrize(
    "rule",
    [
        "-j DOCKER-USER",
        "-i docker0 ! -o docker0 -j ACCEPT",
        "-o p2-data -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        '-i p2-data -m comment --comment "underlay phase2" -j PHASE2-GUARD',
    ],
)
def test_a_rule_about_links_of_others_before_ours_is_none(saved: list[str], system: System, rule: str) -> None:
    saved.insert(2, f"-A INPUT {rule}")
    assert _TABLE.observe(system) is None


@pytest.mark.parametrize("rule", ["-i br-data -j ACCEPT", "! -i docker0 -j ACCEPT", "-s 10.0.0.0/8 -j DROP"])
def test_a_rule_that_may_decide_about_our_links_is_a_difference(saved: list[str], system: System, rule: str) -> None:
    saved.insert(2, f"-A INPUT {rule}")
    assert _TABLE.observe(system) == f"INPUT asks a rule of others before it leads to ours: {rule}"


def test_docker_translates_the_packets_of_its_own_networks_alone(saved: list[str], system: System) -> None:
    table = Table("filter", (Chain("PHASE1-GUARD", ("-s 10.77.1.0/24 -j DROP",)),), _TABLE.jumps)
    saved[3] = "-A PHASE1-GUARD -s 10.77.1.0/24 -j DROP"
    saved.insert(2, "-A INPUT -s 10.79.1.0/24 ! -o p2-frontend -j MASQUERADE")
    assert table.observe(system) is None
    saved[2] = "-A INPUT -s 10.77.0.0/16 -j MASQUERADE"
    system.look_again()
    assert table.observe(system) == "INPUT asks a rule of others before it leads to ours: -s 10.77.0.0/16 -j MASQUERADE"


def test_a_chain_of_others_is_made_where_it_is_missing_and_never_emptied(
    saved: list[str], system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(
        "filter", (Chain("PHASE1-GUARD", ("-j DROP",)),), (Jump("DOCKER-USER", "PHASE1-GUARD", "-i br-data"),)
    )
    (fed,) = (step.text for step in table.say(system.mark) if isinstance(step, Feed))
    assert ":DOCKER-USER - [0:0]" in fed
    saved += [":DOCKER-USER - [0:0]", "-A DOCKER-USER -j RETURN"]
    given: list[str] = []
    run = system.run

    def note(*argv: str, stdin: str | None = None, check: bool = True) -> Completed:
        given.append(stdin or "")
        return run(*argv, stdin=stdin, check=check)

    monkeypatch.setattr(System, "run", lambda self, *argv, **options: note(*argv, **options))
    table.apply(system)
    restored = next(text for text in given if "COMMIT" in text)
    assert ":DOCKER-USER" not in restored
    assert "-I DOCKER-USER -i br-data" in restored


class _Busy:
    """A table that somebody else changes between a look and the transaction, so often; then it holds still."""

    def __init__(self, lines: list[str], changes: int) -> None:
        self.lines, self.changes, self.asked = lines, changes, list[str]()

    def __call__(self, argv: tuple[str, ...], *, check: bool = True, **options: object) -> Completed:
        text = str(options.get("stdin"))
        if argv[0] != "iptables-restore":
            return Completed(argv, 0, "\n".join(["*filter", *self.lines, "COMMIT", ""]), "", 0.0)
        self.asked.append(text)
        if self.changes:
            self.changes -= 1
            self.lines.append(f"-A INPUT -m comment --comment other{self.changes} -j LOG")
        fails = any(rule.removeprefix("-D ") not in " ".join(self.lines) for rule in text.splitlines() if "-D" in rule)
        if check and fails:
            raise NotReady(Problem("host1", "Bad rule", ""))
        return Completed(argv, int(fails), "", "", 0.0)


def test_rules_are_made_from_what_is_there_now_not_from_an_older_look(
    saved: list[str], system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker takes rules along with a network, after all was looked at."""
    assert _TABLE.observe(system) is None
    busy = _Busy([":INPUT ACCEPT [0:0]"], 0)
    monkeypatch.setattr("provision.system.run", busy)
    Table("filter", (), ()).load(system)
    assert busy.asked == ["*filter\nCOMMIT\n"]


def test_a_transaction_that_fails_is_made_anew_as_long_as_there_is_news(
    saved: list[str], system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = "-D INPUT that is not there\n"
    busy = _Busy([":INPUT ACCEPT [0:0]"], 1)
    monkeypatch.setattr("provision.system.run", busy)
    restore(system, "filter", lambda seen: "" if seen.rules["INPUT"] else gone)
    assert busy.asked == [gone, ""]
    with pytest.raises(NotReady, match="Bad rule"):
        restore(system, "filter", lambda _: gone)
    assert len(busy.asked) == 4, "the same text twice, and no more"
