"""No moment in which a denied connection succeeds, whatever starts, stops, crashes, comes and goes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from acceptance.phase2.knocking import allowed
from acceptance.phase2.moments import Moments
from acceptance.phase2.stage import InContainers
from acceptance.suite.cycle import Cycle
from acceptance.suite.knocking import Knocking

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

#: Rounds, and connections of a flow that must not fail: fewer would prove little.
_ROUNDS, _CONNECTIONS = 10, 100
#: Of so many rounds, one at least must have seen an allowed connection made.
_SEEN = 4


@pytest.fixture(scope="session")
def turned(containers: InContainers, cycles: Mapping[str, Cycle]) -> Knocking:
    """Return what came of the knocking while phase 2 was taken away, made by its script, and made again."""
    if not containers.knocked:
        pytest.skip("phase 1 is not beside, or the plan has no containers")
    return containers.knocked[0]


def _assert_nobody_else(knocking: Knocking, stage: InContainers) -> None:
    ways = allowed(stage)
    assert knocking.rounds > _ROUNDS, f"expected: many rounds; seen: {knocking.rounds}"
    # Quick enough to have seen a denied one, in most rounds: some allowed way was open nearly all the time.
    most = max((count for way, count in knocking.through.items() if way in ways), default=0)
    wanted = knocking.rounds / _SEEN
    assert most >= wanted, f"expected: an allowed way is seen open {wanted:g} times or more; seen: {most}"
    denied = {way: count for way, count in knocking.through.items() if way not in ways}
    assert not denied, f"in {knocking.rounds} rounds, {knocking.tried} attempts: expected: none; seen: {denied}"


def _assert_never_failed(knocking: Knocking) -> None:
    assert knocking.made > _CONNECTIONS, f"expected: many connections; seen: {knocking.made}"
    assert not knocking.failed, f"of {knocking.made}: expected: none fails; seen: {knocking.failed}"


def test_nobody_gets_through_while_phase_2_goes_and_comes(turned: Knocking, containers: InContainers) -> None:
    _assert_nobody_else(turned, containers)


def test_flow_of_phase_1_never_fails_while_phase_2_goes_and_comes(turned: Knocking) -> None:
    _assert_never_failed(turned)


def test_nobody_gets_through_while_docker_crashes_and_starts(moments: Moments, containers: InContainers) -> None:
    _assert_nobody_else(moments.crashes, containers)


def test_flow_of_phase_1_never_fails_while_docker_crashes_and_starts(moments: Moments) -> None:
    _assert_never_failed(moments.crashes)


def test_nobody_gets_through_while_phase_1_goes_and_comes(moments: Moments, containers: InContainers) -> None:
    _assert_nobody_else(moments.phase1, containers)


def test_nobody_gets_through_after_a_power_cut(moments: Moments, containers: InContainers) -> None:
    _assert_nobody_else(moments.booted, containers)


def test_every_step_succeeds(moments: Moments) -> None:
    for step, report in moments.reports.items():
        assert report.exit_code == 0, f"{step}: expected: exit 0; seen: {report}"
        if "check" in step:
            assert not report.resources, f"{step}: expected: 0 differences; seen: {report}"
