"""What listens: in each namespace the service alone, on its own port; by the addresses of tiers DNS alone."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from acceptance.phase1.cases import Seat
from acceptance.traffic import DNS_PORT
from underlay.hosts.base import Lab
from underlay.topology import Plan

#: By host and namespace ("-" is the host's own): protocol and address with port, as ss(8) shows them.
Listeners = Mapping[tuple[str, str], frozenset[tuple[str, str]]]
_HOST = "-"
#: All sockets that wait for peers, in the host's own network and in each namespace.
_ASK = f"""
ss -Hlntu | sed 's/^/{_HOST} /'
ip netns list | while read -r name _; do ip netns exec "$name" ss -Hlntu | sed "s/^/$name /"; done
"""


@pytest.fixture(scope="module")
def listeners(lab: Lab) -> Listeners:
    """Ask all hosts, each in one run."""
    found: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for name, host in lab.hosts.items():
        for line in host.run(["sh", "-e", "-c", _ASK]).stdout.splitlines():
            space, protocol, _, _, _, address, *_ = line.split()
            found.setdefault((name, space), set()).add((protocol, address))
    return {place: frozenset(items) for place, items in found.items()}


def test_nothing_but_the_service_listens_in_its_namespace(listeners: Listeners, seat: Seat) -> None:
    wanted = {("tcp", f"{seat.replica.ip}:{seat.service.port}")}
    seen = listeners.get((seat.service.host, seat.replica.namespace), frozenset())
    assert seen == wanted, f"{seat.service.host}/{seat.replica.name}: expected: {wanted}; seen: {sorted(seen)}"


def test_nothing_but_dns_listens_on_the_gateways_of_tiers(listeners: Listeners, plan: Plan, host_name: str) -> None:
    gateways = {str(tier.gateway.ip) for tier in plan.tiers_on(host_name)}
    wanted = {(protocol, f"{address}:{DNS_PORT}") for protocol in ("tcp", "udp") for address in gateways}
    every = listeners.get((host_name, _HOST), frozenset())
    seen = {item for item in every if any(_address(item[1]) in tier.subnet for tier in plan.tiers)}
    assert seen == wanted, f"{host_name}: expected: {sorted(wanted)}; seen: {sorted(seen)}"


def _address(shown: str) -> IPv4Address | IPv6Address:
    """Return the address of what ss(8) shows: ``127.0.0.1%lo:53``, ``[::]:22`` or ``*:80``."""
    words = shown.rpartition(":")[0].partition("%")[0].strip("[]")
    return ip_address("::" if words == "*" else words)
