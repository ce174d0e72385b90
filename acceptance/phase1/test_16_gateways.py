"""What listens at the hosts' addresses in the tiers: DNS alone."""

from __future__ import annotations

from ipaddress import ip_address

from acceptance.modules import LabHost
from acceptance.traffic import DNS_PORT
from underlay.topology import Plan


def test_nothing_but_dns_listens_on_the_gateways_of_tiers(host: LabHost, plan: Plan, host_name: str) -> None:
    gateways = [tier.gateway.ip for tier in plan.tiers_on(host_name)]
    wanted = sorted(f"{protocol}://{address}:{DNS_PORT}" for protocol in ("tcp", "udp") for address in gateways)
    every = (item for item in host.socket.get_listening_sockets() if not item.startswith("unix:"))
    seen = sorted({item for item in every if any(_address(item) in tier.subnet for tier in plan.tiers)})
    assert seen == wanted, f"{host_name}: expected: {wanted}; seen: {seen}"


def _address(shown: str) -> object:
    """Return the address of what testinfra shows: ``tcp://127.0.0.1%lo:53``, ``udp://:::22``."""
    return ip_address(shown.partition("://")[2].rpartition(":")[0].partition("%")[0])
