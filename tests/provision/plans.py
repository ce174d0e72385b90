"""The phase that each host gets for a plan, and the plans and words that these tests share."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from provision import phase1
from provision.phase1 import MARK as PHASE1
from provision.phase1.facts import Facts
from provision.resource import Phase
from provision.resources.rules import Table
from tests.plans import shop
from underlay.topology import Plan

ROOT = Path(__file__).parents[2]
#: What a host answers when it is asked, the same on every machine that runs these tests.
FACTS = Facts("eth0", Path("/usr/lib/postgresql/17/bin"))


def split() -> Plan:
    """The tests' plan with its data tier on host2 and all else on host1."""
    return shop.plan(
        ("redis: {tier: data, host: host1", "redis: {tier: data, host: host2"),
        ("postgres: {tier: data, host: host1", "postgres: {tier: data, host: host2"),
    )


def phases(plan: Plan) -> dict[str, Phase]:
    """Phase 1 of every host."""
    return {host.name: phase1.build(plan, host.name, FACTS) for host in plan.hosts}


def as_on_a_host(text: str) -> str:
    """The text as a host says it, which sees the repository at /vagrant: a path in which nothing need be quoted."""
    quoted = shlex.quote(str(ROOT)).removesuffix("'")
    if quoted != str(ROOT):
        text = re.sub(f"{re.escape(quoted)}([^' ]*)'", r"/vagrant\1", text)
    return text.replace(str(ROOT), "/vagrant")


def table(phase: Phase, name: str) -> Table:
    """The iptables table of that name, empty if the phase has none."""
    found = [item for item in phase.resources if isinstance(item, Table) and item.table == name]
    assert len(found) <= 1
    return found[0] if found else Table(name, (), ())


__all__ = ["FACTS", "PHASE1", "ROOT", "as_on_a_host", "phases", "split", "table"]
