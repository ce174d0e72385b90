"""The script that `explain` prints makes, on a host without the phase, the same kernel state as `converge`."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from acceptance.kernel import difference
from acceptance.suite.cycle import Cycle

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds


def test_script_runs(cycles: Mapping[str, Cycle], busy_host: str) -> None:
    done = cycles[busy_host].script
    assert done.ok, f"{busy_host}: expected: exit 0; seen: {done.returncode}: {done.stderr[-2000:]}"


def test_script_makes_the_same_kernel_state(cycles: Mapping[str, Cycle], busy_host: str) -> None:
    cycle = cycles[busy_host]
    left = difference(cycle.made.lines(), cycle.explained.lines())
    assert not left, f"{busy_host}: expected: what converge makes (-); seen (+):\n{left}"


def test_check_finds_nothing_after_the_script(cycles: Mapping[str, Cycle], busy_host: str) -> None:
    report = cycles[busy_host].check_after_script
    assert (report.exit_code, report.resources) == (0, ()), f"{busy_host}: expected: 0 differences; seen: {report}"
