"""Two phases on one host: either can be removed, and the other stays whole."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from acceptance.kernel import difference
from acceptance.phase1.beside import Moment, Story, settings
from acceptance.suite import flows
from acceptance.suite.cycle import FORWARDING, Cycle
from acceptance.suite.stage import Stage

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds


def _assert_whole(story: Story, moment: Moment, stage: Stage) -> None:
    for phase, report in moment.checks.items():
        assert report.exit_code == 0, f"{story.host}: expected: {phase} is whole; seen: {report}"
    told = moment.told - story.beside
    assert told == set(moment.checks), (
        f"{story.host}: expected: status tells of {sorted(moment.checks)}; seen: {sorted(told)}"
    )
    if moment.matrix:
        for pair in flows.all_pairs(stage.plan):
            flows.assert_flow(moment.matrix, pair, stage)
    if moment.second:
        moment.second.assert_connected()


def test_every_step_succeeds(story: Story) -> None:
    for step, report in story.reports.items():
        assert report.exit_code == 0, f"{story.host}: {step}: expected: exit 0; seen: {report}"


def test_both_are_whole_side_by_side_whichever_came_first(story: Story, stage: Stage) -> None:
    for moment in (story.both, story.both_again):
        _assert_whole(story, moment, stage)


def test_second_phase_stays_whole_when_phase_1_goes(story: Story, stage: Stage) -> None:
    _assert_whole(story, story.second_alone, stage)
    wanted = ("1", "DROP")
    seen = story.second_alone.settings
    assert seen == wanted, f"{story.host}: expected: {FORWARDING} and policy are still {wanted}; seen: {seen}"


def test_phase_1_stays_whole_when_a_second_phase_goes(story: Story, stage: Stage) -> None:
    _assert_whole(story, story.first_alone, stage)
    left = difference(story.before.lines(), story.first_alone.state.lines())
    assert not left, f"{story.host}: expected: the state before (-); seen (+):\n{left}"


def test_last_phase_puts_the_hosts_own_settings_back_whichever_it_is(story: Story, cycles: Mapping[str, Cycle]) -> None:
    """What the first one found is what the last one leaves, though each found what the other had made.

    Phase 1 is the last one when it is next taken away: at the beginning of its cycle, which comes after the story.
    """
    cycle, where = cycles[story.host], story.host
    for told, state in ((story.bare.told, story.bare.state), (cycle.phases_left, cycle.removed)):
        assert told == story.beside, f"{where}: expected: neither phase is on; seen: {sorted(told)}"
        rules = [line for line in state.rules if re.search("PHASE[19]|underlay phase[19]", line)]
        assert not rules, f"{where}: expected: no rules of any phase; seen: {rules}"
        if not any(line.startswith(":DOCKER") for line in state.rules):  # which forwards too, once it has run
            forwards, policy = settings(state)
            seen = f"{forwards}, {policy}"
            assert forwards == "0", f"{where}: expected: {FORWARDING} is 0 again; seen: {seen}"
            assert policy == "ACCEPT", f"{where}: expected: nothing is dropped any more; seen: {seen}"
    left = difference(story.bare.state.lines(), cycle.removed.lines())
    assert not left, f"{where}: expected: the same bare host; seen:\n{left}"
    changed = difference(story.before.lines(), cycle.made_again.lines())
    assert not changed, f"{where}: expected: phase 1 as before all this; seen:\n{changed}"
