"""A stage: a phase joins what holds in every phase with one file, and is told what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest

import acceptance
from acceptance.suite import cases, flows
from acceptance.suite.stage import Seat, load, members
from acceptance.traffic import Attempt
from tests.hosts.recorded import record
from tests.plans import shop
from underlay.errors import InputError
from underlay.hosts.base import Lab

_IDLE = '''
from acceptance.suite.stage import Stage, Seat


class Idle(Stage):
    """A phase in which no replica is anywhere."""

    deny_chain = "IDLE-DENY"

    def seat(self, member):
        return Seat(member, "nowhere", "/run/netns/none", member.replica.ip)

    def enter(self, seat):
        return ()

    def resolver(self, seat):
        return seat.tier.gateway.ip

    def names(self, seat):
        return {}

    def user(self, seat):
        return "nobody"

    def secret(self, seat):
        return "/none"

    def room(self, seat):
        return frozenset()

    def stop(self, seat): ...

    def start(self, seat): ...

    def seen_as(self, visit):
        return visit.address

    def query(self, seat, statement):
        return ""
'''

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Lend the way to add a phase's one file to the suite."""
    monkeypatch.setattr(acceptance, "__path__", [*acceptance.__path__, str(tmp_path)])

    def add(phase: str, text: str) -> None:
        (tmp_path / phase).mkdir()
        (tmp_path / phase / "stage.py").write_text(text)

    return add


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return record(tmp_path / "state", shop.plan())


def test_a_stage_that_does_nothing_is_one_file(write: Write, lab: Lab) -> None:
    write("idle", _IDLE)
    stage = load("idle", lab)
    assert {seat.name for seat in stage.seats()} == {item.name for _, item in lab.plan.replicas()}
    assert stage.by_host() == {}
    assert flows.measure(stage).outcomes == {}


def test_names_of_tests_come_from_the_plan_and_places_from_the_stage(lab: Lab) -> None:
    names = [name for name, _ in cases.CASES["seat"](lab.plan)]
    seats = load("phase1", lab).seats()
    assert [seat.name for seat in seats] == names
    assert {(seat.host, seat.space) for seat in seats} >= {("host1", "/run/netns/edge-1")}


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "expected: one stage; seen: none"), (f"{_IDLE}\n\nclass Other(Idle): ...\n", "seen: Idle, Other")],
)
def test_a_file_with_no_stage_or_two_is_said(write: Write, lab: Lab, text: str, said: str) -> None:
    write(f"wrong{len(text)}", text)
    with pytest.raises(InputError, match=said):
        load(f"wrong{len(text)}", lab)


def test_a_phase_that_is_not_there_is_said(lab: Lab) -> None:
    with pytest.raises(InputError, match="there is no phase none"):
        load("none", lab)


def test_an_attempt_from_a_seat_names_the_replica(lab: Lab) -> None:
    member = next(members(lab.plan))
    seat = Seat(member, "host1", "/proc/7/ns/net", IPv4Address("192.0.2.1"))
    found = seat.attempt("tcp", IPv4Address("192.0.2.2"), 80)
    assert found == Attempt("tcp", "192.0.2.2", 80, "/proc/7/ns/net", who=member.name)
