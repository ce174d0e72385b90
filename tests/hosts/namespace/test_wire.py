from __future__ import annotations

from pathlib import Path

import pytest

from underlay.hosts.namespace import wire
from underlay.mountinfo import parse

MOUNTS = parse(b"""\
22 27 0:21 / /proc rw,relatime - proc proc rw
80 27 0:4 net:[4026532202] /run/underlay/shop/net rw shared:9 - nsfs nsfs rw
81 80 0:4 net:[4026532203] /run/underlay/shop/net rw shared:9 - nsfs nsfs rw
82 27 0:4 net:[4026532204] /run/underlay/shop-2/net rw - nsfs nsfs rw
""")


def test_a_hardware_address_is_stable_local_and_unicast() -> None:
    address = wire.mac("shop", "host1")
    assert address == wire.mac("shop", "host1")
    assert address.startswith("02:")
    assert [len(part) for part in address.split(":")] == [2] * 6


def test_hardware_addresses_differ_between_hosts_labs_and_the_bridge() -> None:
    words = [("shop", "host1"), ("shop", "host2"), ("other", "host1"), ("shop",), ("shophost1",)]
    assert len({wire.mac(*each) for each in words}) == len(words)


def test_the_bridge_gets_the_planned_address_and_size() -> None:
    assert wire.bridge_batch("shop", "192.168.56.1/24", 1400).splitlines() == [
        f"link set underlay0 address {wire.mac('shop')} mtu 1400",
        "address replace 192.168.56.1/24 dev underlay0",
        "link set underlay0 up",
        "link set lo up",
    ]


@pytest.mark.parametrize(("lab", "count"), [("shop", 2), ("shop-2", 1), ("sho", 0)])
def test_mounts_are_counted_on_exactly_one_path(lab: str, count: int) -> None:
    assert wire.mounts_on(MOUNTS, Path(f"/run/underlay/{lab}/net")) == count
