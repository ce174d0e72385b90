"""The shipped plan, and what README says of it. No other test looks at it: it is there to be changed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.plans import shop
from underlay.phases import PHASES
from underlay.topology import Plan, load_plan

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return load_plan(ROOT / "topology.yaml")


def test_it_is_valid(plan: Plan) -> None:
    assert plan.lab


def test_readme_shows_what_it_comes_to(plan: Plan) -> None:
    if replace(plan, lab=shop.plan().lab) != shop.plan():
        pytest.skip("topology.yaml was changed; README shows the lab of the one that is shipped")
    table = re.search(r"```\n host   address .*?```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert table
    published = {f"{entry.service}-1": f"{entry.host}:{entry.port}" for entry in plan.published}
    on = ("up,", *", ".join(f"{phase} on" for phase in PHASES).split())
    hosts = [(host.name, str(host.address.ip), *on) for host in plan.hosts]
    services = [
        (service.name, item.namespace, service.host, service.tier, f"{item.ip}:{service.port}",
         *filter(None, [published.get(item.name)]), "running", "running")
        for service, item in plan.replicas()
    ]  # fmt: skip
    rows = [tuple(line.split()) for line in table[0].splitlines()[1:-1] if line.strip()]
    assert [row for row in rows if row[0] not in {"host", "service"}] == [*hosts, *services]
