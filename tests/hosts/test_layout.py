from __future__ import annotations

import json
from ipaddress import IPv4Address

from underlay.hosts import layout

HOSTS = [("host1", IPv4Address("192.168.56.11")), ("host2", IPv4Address("192.168.56.12"))]


def test_every_host_is_in_the_hosts_file_by_both_names() -> None:
    assert layout.hosts_file("host2", "shop.internal", HOSTS) == (
        "# host2, written when it starts; the addresses come from the plan.\n"
        "127.0.0.1 localhost\n"
        "::1 localhost ip6-localhost ip6-loopback\n"
        "192.168.56.11 host1.shop.internal host1\n"
        "192.168.56.12 host2.shop.internal host2\n"
    )


def test_the_resolver_file_names_no_server() -> None:
    assert all(line.startswith("#") for line in layout.resolver_file().splitlines())


def test_a_host_can_read_who_it_is() -> None:
    assert json.loads(layout.identity_file("shop", "host1")) == {"host": "host1", "lab": "shop", "kind": "namespace"}


def test_our_own_programs_come_first_in_the_path() -> None:
    assert layout.environment()["PATH"].split(":")[0] == "/opt/underlay/bin"
    assert layout.environment("xterm")["TERM"] == "xterm"
