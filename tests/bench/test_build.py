"""How measurements are put in order, and what is refused before any is made."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.build import measure_build, order
from bench.network import LARGEST
from bench.tools import Tool
from underlay.errors import InputError


def test_every_tool_has_its_turn_in_every_round() -> None:
    turns = list(order(dict.fromkeys(Tool, 3), (10, 50)))
    assert len(turns) == len(Tool) * 2 * 3
    assert set(Counter((size, tool) for size, tool, _ in turns).values()) == {3}


def test_every_other_round_goes_backwards() -> None:
    a, b = Tool.OURS, Tool.BATCH
    assert [(tool, run) for _, tool, run in order({a: 3, b: 3}, (10,))] == [
        (a, 1), (b, 1),
        (b, 2), (a, 2),
        (a, 3), (b, 3),
    ]  # fmt: skip


def test_a_slow_tool_may_have_fewer_turns() -> None:
    turns = order({Tool.OURS: 3, Tool.MININET: 1, Tool.BATCH: 0}, (10,))
    assert [(tool, run) for _, tool, run in turns] == [
        (Tool.OURS, 1), (Tool.MININET, 1), (Tool.OURS, 2), (Tool.OURS, 3)
    ]  # fmt: skip


def test_sizes_are_done_one_after_the_other() -> None:
    assert [size for size, _, _ in order({Tool.OURS: 2}, (50, 10))] == [50, 50, 10, 10]


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(InputError) as caught:
        measure_build((0, 10, LARGEST + 1), 0, 1.0, _unasked)
    said = [str(problem) for problem in caught.value.problems]
    assert len(said) == 3
    assert f"give 1 to {LARGEST}" in said[0]
    assert str(LARGEST + 1) in said[1]
    assert "--runs" in said[2]


def _unasked(number: int, total: int, what: str) -> None:
    pytest.fail(f"{number} of {total} was begun: {what}")
