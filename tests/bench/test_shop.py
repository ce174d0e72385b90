"""What load on the shop comes to: what `ab` says, what is refused, and the table."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from click.testing import CliRunner

from bench.shop import Load, Result, Sample, measure_shop, rate
from tests.plans import shop
from underlay.cli.bench import _beside, bench, render_shop
from underlay.cli.context import Settings
from underlay.errors import InputError, NotReady
from underlay.hosts.base import Lab

SAID = "Complete requests:      2000\nFailed requests:        {}\n{}Requests per second:    {} [#/sec] (mean)\n"


def samples(lab: str, *rates: float) -> list[Sample]:
    found = [Sample(lab, number, "shop", value) for number, value in enumerate(rates, start=1)]
    others = [Sample(lab, 1, "edge", 5000), Sample(lab, 1, "start", 0.25, "p"), Sample(lab, 1, "memory", 2**26, "p")]
    return [*found, *others]


def result(*found: Sample) -> Result:
    hosts = {sample.lab: {"host1": {"kernel": "6.12"}} for sample in found}
    return Result("6.12", 2, Load(), 3, hosts, found)


def test_what_ab_says_is_read() -> None:
    assert rate(SAID.format(0, "", "2705.14")) == 2705.14


@pytest.mark.parametrize("said", [SAID.format(3, "", "2705"), SAID.format(0, "Non-2xx responses: 2000\n", "9000"), ""])
def test_a_rate_of_requests_that_failed_is_none(said: str) -> None:
    with pytest.raises(ValueError, match=r"failed|no requests"):
        rate(said)


def test_all_that_cannot_be_measured_is_told_at_once() -> None:
    lab = cast("Lab", SimpleNamespace(plan=shop.plan()))
    with pytest.raises(InputError) as caught:
        measure_shop([lab, lab], 0, Load(10, 50), lambda *_: None)
    assert [problem.where for problem in caught.value.problems] == ["--rounds", "--at-once", f"lab {shop.plan().lab}"]


def test_a_shop_without_entry_is_refused() -> None:
    lab = cast("Lab", SimpleNamespace(plan=replace(shop.plan(), published=())))
    with pytest.raises(InputError, match="its entry is no edge"):
        measure_shop([lab], 1, Load(), lambda *_: None)


@pytest.mark.parametrize("words", [("build", "--sizes", "1"), ("shop",)])
@pytest.mark.parametrize("place", ["/proc/figures.json", "/etc/hostname/figures.json"])
def test_figures_that_cannot_be_written_are_not_measured(words: tuple[str, ...], place: str) -> None:
    done = CliRunner().invoke(bench, [*words, "--json", place], obj=Settings(shop.PATH))
    assert isinstance(done.exception, InputError)
    assert place in str(done.exception)


def test_what_is_said_of_another_lab_names_its_plan(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(shop.text((f"lab: {shop.plan().lab}", "lab: nobody-runs-it")))
    with pytest.raises(NotReady, match=re.escape(f"./lab --plan {other} up")):
        _beside(Settings(other))


def test_the_table_has_medians_and_ratios_to_the_first_lab() -> None:
    table = render_shop(result(*samples("before", 400, 900, 500), *samples("after", 1000, 1500, 3000)), 200)
    before, after = (line.split() for line in table.splitlines() if line.split()[:1] in (["before"], ["after"]))
    assert before == ["before", "500", "1.00", "5000", "1.00", "0.25", "s", "64", "MiB"]
    assert after[1:3] == ["1500", "3.00"]


def test_the_raw_data_says_what_its_numbers_mean() -> None:
    told = json.loads(result(*samples("one", 400)).as_json())
    assert {sample["what"] for sample in told["samples"]} == set(told["definitions"])
    assert told["load"] == {"requests": 2000, "at_once": 50}
