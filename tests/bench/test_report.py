"""What the figures come to."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from bench.build import Measurement, Result
from bench.inside import Figures
from bench.report import as_json, summaries
from bench.tools import Machine, Tool
from underlay.cli.bench import bench, render
from underlay.errors import CheckFailed


def figures(up: float, down: float) -> Figures:
    return Figures(up=up, up_whole=up + 1, down=down, down_whole=down + 2, settled=down + 3)


def result(*measurements: Measurement) -> Result:
    place = Machine("6.12", 2, "3.13", {"iproute2": "6.1"}, {Tool.MININET: "it is not installed"})
    return Result(place, (10,), 3, (0.5, 1.5), measurements)


def runs(tool: Tool, *pairs: tuple[float, float]) -> list[Measurement]:
    return [Measurement(tool, 10, number, figures(*pair)) for number, pair in enumerate(pairs, start=1)]


def test_medians_and_ratios() -> None:
    found = result(*runs(Tool.OURS, (1, 4), (9, 2), (2, 3)), *runs(Tool.BATCH, (3, 1), (8, 9), (5, 6)))
    ours, batch = summaries(found)
    assert (ours.tool, batch.tool) == (Tool.OURS, Tool.BATCH)
    assert ours.figures == Figures(up=2, up_whole=3, down=3, down_whole=5, settled=6)
    assert (ours.up_ratio, ours.down_ratio) == (1, 1)
    assert (batch.up_ratio, batch.down_ratio) == (2.5, 2)
    assert (ours.runs, batch.runs) == (3, 3)


def test_a_tool_that_failed_has_no_figures_and_says_why() -> None:
    found = result(*runs(Tool.OURS, (1, 1)), Measurement(Tool.MININET, 10, 1, None, "too slow"))
    _, mininet = summaries(found)
    assert (mininet.figures, mininet.up_ratio, mininet.runs, mininet.error) == (None, None, 0, "too slow")


def test_without_ours_there_is_nothing_to_compare_with() -> None:
    (batch,) = summaries(result(*runs(Tool.BATCH, (1, 1))))
    assert batch.figures
    assert batch.up_ratio is None


def test_the_raw_data_has_every_single_figure_and_says_what_it_means() -> None:
    found = json.loads(as_json(result(*runs(Tool.OURS, (1, 4), (9, 2)))))
    assert [item["figures"]["up"] for item in found["measurements"]] == [1, 9]
    assert set(found["definitions"]) >= set(found["measurements"][0]["figures"])
    assert found["machine"]["kernel"] == "6.12"
    assert found["machine"]["missing"] == {"mininet": "it is not installed"}


def test_the_table_loses_no_figure_where_lines_are_short() -> None:
    found = result(*runs(Tool.OURS, (1.25, 0.5)), Measurement(Tool.EXPLAIN, 10, 1, None, "too slow"))
    text = render(found, columns=40)
    assert "underlay" in text
    assert "1.250" in text
    assert "3.500" in text
    assert "mininet was left out: it is not installed" in text
    assert "explain at 10: too slow" in text


def test_a_machine_that_was_changed_is_a_failed_check() -> None:
    result().ensure_unchanged()
    with pytest.raises(CheckFailed, match="`ip -o link show` does not say the same"):
        replace(result(), changed=("ip -o link show",)).ensure_unchanged()


def test_sizes_that_are_no_numbers_are_refused() -> None:
    ended = CliRunner().invoke(bench, ["build", "--sizes", "10,many"])
    assert ended.exit_code == 2
    assert "whole numbers" in ended.output
