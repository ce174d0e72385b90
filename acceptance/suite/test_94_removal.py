"""After `remove` the host is as it was before the phase, and `converge` makes it again."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from acceptance.kernel import difference
from acceptance.suite.cycle import Cycle
from acceptance.suite.stage import Stage

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

#: A directory that is a phase's alone.
_OF_A_PHASE = re.compile(r"(?<=/)phase\d(?=/)")


def test_removal_succeeds(cycles: Mapping[str, Cycle], busy_host: str) -> None:
    for report in (cycles[busy_host].first_removal, cycles[busy_host].second_removal):
        assert report.exit_code == 0, f"{busy_host}: expected: exit 0; seen: {report}"
        assert report.resources, f"{busy_host}: expected: it says what it removed; seen: {report}"


def test_nothing_of_its_data_stays_on_the_disk(cycles: Mapping[str, Cycle], busy_host: str) -> None:
    kept = cycles[busy_host].kept
    assert not kept, f"{busy_host}: expected: nothing is there after a removal; seen: {kept}"


def test_state_after_removal_is_that_before(cycles: Mapping[str, Cycle], busy_host: str, stage: Stage) -> None:
    """Kernel state, with settings that were the host's own, and files; another phase goes on writing in its own."""
    cycle = cycles[busy_host]
    own, again = (
        frozenset(line for line in state.lines(files=True) if set(_OF_A_PHASE.findall(line)) <= {stage.phase})
        for state in (cycle.own, cycle.removed_again)
    )
    left = difference(own, again)
    assert not left, f"{busy_host}: expected: the state before (-); seen (+):\n{left}"


def test_the_hosts_own_resolver_is_untouched(cycles: Mapping[str, Cycle], busy_host: str) -> None:
    def resolver(files: tuple[str, ...]) -> list[str]:
        return [line for line in files if line.startswith("/etc/resolv.conf ")]

    cycle = cycles[busy_host]
    before, during = resolver(cycle.removed.files), resolver(cycle.made.files)
    assert before == during, f"{busy_host}: expected: /etc/resolv.conf is {before}; seen with the phase: {during}"


def test_converge_makes_it_all_again(cycles: Mapping[str, Cycle], busy_host: str) -> None:
    cycle = cycles[busy_host]
    assert cycle.converged_again.exit_code == 0, f"{busy_host}: expected: exit 0; seen: {cycle.converged_again}"
    left = difference(cycle.made.lines(), cycle.made_again.lines())
    assert not left, f"{busy_host}: expected: the state before (-); seen (+):\n{left}"
