"""What differs between two plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plans import shop
from underlay.hosts.namespace import power
from underlay.topology import differences, needing_a_start, parse_plan, render_plan

TEXT = shop.text()
#: An edit, the keys that it is told by, and whether hosts of namespaces are started with what it changes.
EDITS = [
    ("port: 8080", "port: 8081", ("publish",), False),
    ("first: 20, replicas: 2", "first: 20, replicas: 3", ("services.gateway.replicas",), False),
    ("  - product -> redis\n", "", ("flows",), False),
    ("cache: 300", "cache: 200", ("timeouts.cache",), False),
    ("memory: 1024", "memory: 1536", ("hosts.host2.memory",), False),
    ("192.168.56.11", "192.168.56.13", ("hosts.host1.address",), True),
    ("mtu: 1500", "mtu: 1400", ("underlay.mtu",), True),
    ("gateway: 192.168.56.1\n", "gateway: 192.168.56.2\n", ("underlay.gateway",), True),
    ("domain: shop.internal", "domain: shop.example", ("domain",), True),
    ("  host2: {", "  host3: {address: 192.168.56.13, cpus: 1, memory: 512}\n  host2: {",
     ("hosts.host3",), True),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "keys", "started"), EDITS, ids=[keys[0] for _, _, keys, _ in EDITS])
def test_an_edit_is_told_by_its_keys(old: str, new: str, keys: tuple[str, ...], *, started: bool) -> None:
    """And what hosts are started with, by these keys, is what they are started with by the power switch."""
    assert old in TEXT
    before, after = parse_plan(TEXT, "before"), parse_plan(TEXT.replace(old, new), "after")
    assert differences(before, after) == keys
    assert differences(after, before) == keys
    where = Path("/image"), Path("/checkout")
    digests = [{host.name: power.host_digest(plan, host, *where) for host in plan.hosts} for plan in (before, after)]
    assert (digests[0] != digests[1]) is started
    assert bool(needing_a_start(keys)) is (started or keys[0].startswith("hosts."))


def test_equal_plans_do_not_differ_however_they_are_written() -> None:
    before = parse_plan(TEXT, "before")
    assert differences(before, parse_plan(render_plan(before), "all said")) == ()
    assert differences(before, parse_plan(f"# said otherwise\n{TEXT}", "a comment")) == ()


def test_another_order_is_a_difference() -> None:
    lines = TEXT.splitlines()
    one, two = (next(i for i, line in enumerate(lines) if line.startswith(f"  host{n}:")) for n in (1, 2))
    lines[one], lines[two] = lines[two], lines[one]
    keys = differences(parse_plan(TEXT, "x"), parse_plan("\n".join(lines), "y"))
    assert keys == ("hosts (order)",)
    assert needing_a_start(keys) == keys
