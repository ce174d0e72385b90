"""Two phases on one host: either can be removed, and the other stays whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from acceptance.kernel import Snapshot, difference, snapshot
from acceptance.phase1 import flows
from acceptance.phase1.conftest import LastSeen
from acceptance.phase1.flows import Matrix
from acceptance.provisioning import Report, provision
from acceptance.traffic import Attempt, Listener, Outcome, Prober
from underlay.hosts.base import Host, Lab
from underlay.topology import Plan

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

_FIRST = "phase1"
#: A phase of the tests' own: a namespace behind a bridge that may go anywhere (tests/provision/second/phase9.py).
_SECOND, _PROGRAM = "phase9", "tests.provision.second"
_SPACE, _SUBNET = "ninth-1", "198.18.9.0/24"
_FORWARDING, _POLICY = "net.ipv4.ip_forward", ":FORWARD "


@dataclass(frozen=True, slots=True)
class Moment:
    """The host at one moment: what `check` says of each phase that should be on, and what its traffic does.

    ``told`` are the phases that the host itself says are on.
    """

    checks: Mapping[str, Report]
    told: frozenset[str]
    matrix: Matrix | None
    second: Outcome | None
    state: Snapshot

    @property
    def settings(self) -> tuple[str, list[str]]:
        """Whether the host forwards, and its policy."""
        policy = [line for line in self.state.plain_rules() if line.startswith(_POLICY)]
        return self.state.root.parameters[_FORWARDING], policy


@dataclass(frozen=True, slots=True)
class Story:
    """Step by step: the second comes, the first goes, the second goes; both come; the second goes, the first goes.

    ``reports`` are those of all steps.
    """

    host: str
    reports: Mapping[str, Report]
    both: Moment
    second_alone: Moment
    bare: Moment
    both_again: Moment
    first_alone: Moment
    bare_again: Moment
    before: Snapshot
    after: Snapshot


def _do(host: Host, verb: str, phase: str) -> Report:
    return provision(host, verb) if phase == _FIRST else provision(host, verb, _SECOND, program=_PROGRAM)


def _moment(lab: Lab, host: Host, *on: str) -> Moment:
    return Moment(
        checks={phase: _do(host, "check", phase) for phase in on},
        told=frozenset(json.loads(host.run(["python3", "-m", _PROGRAM, "status"]).stdout)["phases"]),
        matrix=flows.measure(lab, (flows.SERVICE,)) if _FIRST in on else None,
        second=_second_goes_out(lab, host) if _SECOND in on else None,
        state=snapshot(host),
    )


def _second_goes_out(lab: Lab, host: Host) -> Outcome:
    """Connect from the second phase's namespace to another host, which is shown the way back."""
    away = next(item for item in lab.hosts.values() if item.name != host.name)
    with ExitStack() as stack:
        stack.callback(away.run, ["ip", "route", "delete", _SUBNET], check=False)
        away.run(["ip", "route", "add", _SUBNET, "via", str(host.address)])
        listening = stack.enter_context(Prober(away, lab.plan).listening([Listener("tcp")]))
        goal = Attempt("tcp", str(away.address), listening.ports[0], _SPACE, reply=True)
        # Where phase 1 is not, nothing counts what it denies.
        return Prober(host, lab.plan, chain=None).one(goal)


@pytest.fixture(scope="module")
def story(lab: Lab, plan: Plan, last_seen: LastSeen) -> Story:
    """Go through the steps on the first host with services; at the end phase 1 is on it alone, whatever happened."""
    host = next(lab.hosts[item.name] for item in plan.hosts if plan.services_on(item.name))
    reports: dict[str, Report] = {}

    def do(verb: str, phase: str) -> None:
        reports[f"{len(reports) + 1}: {verb} {phase}"] = _do(host, verb, phase)

    try:
        do("converge", _SECOND)
        both = _moment(lab, host, _FIRST, _SECOND)
        do("remove", _FIRST)
        second_alone = _moment(lab, host, _SECOND)
        do("remove", _SECOND)
        bare = _moment(lab, host)
        do("converge", _SECOND)
        do("converge", _FIRST)
        both_again = _moment(lab, host, _FIRST, _SECOND)
        do("remove", _SECOND)
        first_alone = _moment(lab, host, _FIRST)
        do("remove", _FIRST)
        bare_again = _moment(lab, host)
    finally:
        _do(host, "remove", _SECOND)
        reports["at the end: converge"] = _do(host, "converge", _FIRST)
    before, after = last_seen.snapshots[host.name], snapshot(host)
    return Story(host.name, reports, both, second_alone, bare, both_again, first_alone, bare_again, before, after)


def _assert_whole(story: Story, moment: Moment, plan: Plan) -> None:
    for phase, report in moment.checks.items():
        assert report.exit_code == 0, f"{story.host}: expected: {phase} is whole; seen: {report}"
    assert moment.told == set(moment.checks), (
        f"{story.host}: expected: status tells of {sorted(moment.checks)}; seen: {sorted(moment.told)}"
    )
    if moment.matrix:
        for pair in flows.all_pairs(plan):
            flows.assert_flow(moment.matrix, pair, plan)
    if moment.second:
        moment.second.assert_connected()


def test_every_step_succeeds(story: Story) -> None:
    for step, report in story.reports.items():
        assert report.exit_code == 0, f"{story.host}: {step}: expected: exit 0; seen: {report}"


def test_both_are_whole_side_by_side_whichever_came_first(story: Story, plan: Plan) -> None:
    for moment in (story.both, story.both_again):
        _assert_whole(story, moment, plan)


def test_second_phase_stays_whole_when_phase_1_goes(story: Story, plan: Plan) -> None:
    _assert_whole(story, story.second_alone, plan)
    wanted = ("1", [":FORWARD DROP"])
    seen = story.second_alone.settings
    assert seen == wanted, f"{story.host}: expected: {_FORWARDING} and policy are still {wanted}; seen: {seen}"


def test_phase_1_stays_whole_when_a_second_phase_goes(story: Story, plan: Plan) -> None:
    _assert_whole(story, story.first_alone, plan)
    left = difference(story.before.lines(), story.first_alone.state.lines())
    assert not left, f"{story.host}: expected: the state before (-); seen (+):\n{left}"


def test_last_phase_puts_the_hosts_own_settings_back_whichever_it_is(story: Story) -> None:
    """What the first one found is what the last one leaves, though each found what the other had made."""
    for moment in (story.bare, story.bare_again):
        assert not moment.told, f"{story.host}: expected: no phase is on; seen: {sorted(moment.told)}"
        rules = [line for line in moment.state.rules if "PHASE" in line or "underlay" in line]
        assert not rules, f"{story.host}: expected: no rules of any phase; seen: {rules}"
        if not any(line.startswith(":DOCKER") for line in moment.state.rules):  # which forwards too, once it has run
            forwards, policy = moment.settings
            seen = f"{forwards}, {policy}"
            assert forwards == "0", f"{story.host}: expected: {_FORWARDING} is 0 again; seen: {seen}"
            assert ":FORWARD DROP" not in policy, f"{story.host}: expected: nothing is dropped any more; seen: {seen}"
    left = difference(story.bare.state.lines(), story.bare_again.state.lines())
    assert not left, f"{story.host}: expected: the same bare host; seen:\n{left}"
    changed = difference(story.before.lines(), story.after.lines())
    assert not changed, f"{story.host}: expected: phase 1 as before all this; seen:\n{changed}"
