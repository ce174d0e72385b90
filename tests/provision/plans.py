"""Plans for these tests, and the phase that each host gets for them."""

from __future__ import annotations

from pathlib import Path

from provision import phase1
from provision.phase1 import MARK as PHASE1
from provision.phase1.facts import Facts
from provision.resource import Phase
from provision.resources.rules import Table
from underlay.topology import Plan, load_plan, parse_plan

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "topology.yaml"
#: What a host answers when it is asked, the same on every machine that runs these tests.
FACTS = Facts("eth0", Path("/usr/lib/postgresql/17/bin"))


def shipped(*changes: tuple[str, str]) -> Plan:
    """The shipped plan with some of its text replaced; each old text must stand there once."""
    if not changes:
        return load_plan(SHIPPED)
    text = SHIPPED.read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return parse_plan(text, "changed")


def split() -> Plan:
    """The shipped plan with its data tier on host2 and all else on host1."""
    return shipped(
        ("redis: {tier: data, host: host1", "redis: {tier: data, host: host2"),
        ("postgres: {tier: data, host: host1", "postgres: {tier: data, host: host2"),
    )


def phases(plan: Plan) -> dict[str, Phase]:
    """Phase 1 of every host."""
    return {host.name: phase1.build(plan, host.name, FACTS) for host in plan.hosts}


def table(phase: Phase, name: str) -> Table:
    """The iptables table of that name, empty if the phase has none."""
    found = [item for item in phase.resources if isinstance(item, Table) and item.table == name]
    assert len(found) <= 1
    return found[0] if found else Table(name, (), ())


__all__ = ["FACTS", "PHASE1", "ROOT", "SHIPPED", "phases", "shipped", "split", "table"]
