"""What the suite takes for the shop's caches: what the plan lets products reach, not what the plan has."""

from __future__ import annotations

from pathlib import Path

import pytest

from acceptance.customer import Customer
from acceptance.suite.shop import Shop
from acceptance.suite.stage import load
from tests.hosts.recorded import record
from tests.plans import shop
from underlay.topology import parse_plan

TEXT = shop.text()
_EXTRA = "  extra: {tier: backend, host: host1, program: product, port: 5000, first: 90}\n"
_SIDE = "  side: {tier: frontend, host: host1, program: gateway, port: 3000, first: 90}\n"


def plan(services: str, *flows: str) -> str:
    """Return the shipped plan with more services and flows."""
    lines = "".join(f"  - {flow}\n" for flow in flows)
    return TEXT.replace("  redis:", f"{services}  redis:").replace("flows:\n", f"flows:\n{lines}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TEXT, ["redis"]),
        (TEXT.replace("  - product -> redis\n", ""), []),
        (plan(_EXTRA + _SIDE, "edge -> side", "side -> extra", "side -> order", "extra -> postgres"), []),
        (plan(_EXTRA, "extra -> postgres"), ["redis"]),
    ],
    ids=["as shipped", "without the flow", "another gateway's products go past it", "a product service nobody asks"],
)
def test_caches_are_what_products_may_reach(text: str, expected: list[str], tmp_path: Path) -> None:
    lab = record(tmp_path, parse_plan(text, "plan"))
    shop = Shop(load("phase1", lab), Customer(lab.outside, lab.plan))
    assert [service.name for service in shop.caches()] == expected
