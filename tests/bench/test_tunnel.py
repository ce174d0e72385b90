"""What the tunnel costs: what is refused, and the table."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from bench.tunnel import Result, Sample, _crossing, measure_tunnel
from tests.plans import shop
from underlay.cli.bench import render_tunnel
from underlay.errors import InputError
from underlay.hosts.base import Lab
from underlay.topology import Flow, across

SAMPLES = tuple(
    Sample(way, number, what, value * number)
    for way, rate, trip in (("cable", 4.0, 0.5), ("underlay", 2.0, 1.0), ("tunnel", 1.0, 2.0))
    for what, value in (("throughput", rate * 2**20), ("trip", trip / 1e6))
    for number in (1, 2, 3)
)
RESULT = Result("6.12", 2, 3, {"host1": {"kernel": "6.12"}}, SAMPLES)


def test_all_that_cannot_be_measured_is_told_at_once() -> None:
    lab = cast("Lab", SimpleNamespace(plan=replace(shop.plan(), flows=())))
    with pytest.raises(InputError) as caught:
        measure_tunnel(lab, 0, lambda *_: None)
    assert [problem.where for problem in caught.value.problems] == ["--rounds", f"lab {shop.plan().lab}"]


def test_way_that_is_measured_crosses_hosts() -> None:
    """Who is called from both hosts stands on one of them, where some of his callers stand too."""
    plan = shop.plan(
        ("  data: {subnet: 10.77.3.0/24}", "  data: {subnet: 10.77.3.0/24}\n  away: {subnet: 10.77.4.0/24}"),
        ("  product: {tier", "  far: {tier: away, host: host2, program: gateway, port: 3000}\n  product: {tier"),
        ("  - gateway -> order", "  - gateway -> order\n  - far -> product\n  - far -> order"),
    )
    assert _crossing(across(plan)) == Flow("far", "product")
    assert _crossing(across(shop.plan())) == Flow("gateway", "product")


def test_table_has_each_way_with_its_share_of_the_underlay() -> None:
    rows = [line.split() for line in render_tunnel(RESULT, 100).splitlines() if "MiB/s" in line]
    assert rows == [
        ["cable", "8", "MiB/s", "2.00", "1", "us", "0.50"],
        ["underlay", "4", "MiB/s", "1.00", "2", "us", "1.00"],
        ["tunnel", "2", "MiB/s", "0.50", "4", "us", "2.00"],
    ]


def test_every_figure_is_kept() -> None:
    data = json.loads(RESULT.as_json())
    assert len(data["samples"]) == len(SAMPLES)
    assert set(data["definitions"]) >= {"cable", "underlay", "tunnel", "throughput", "trip"}
