"""The tier that phase 3 stretches across two hosts through a VXLAN made by hand, derived from the plan. Pure.

In phases 1 and 2 a tier is a bridge on one host. Here gateways stay where the plan has them, and the product services
that they may call stand on another host, in the same subnet: one Ethernet segment (RFC 7348) on top of the underlay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface

from underlay.topology.derive import interface_in, link_name
from underlay.topology.draft import FIRST, OVERHEAD
from underlay.topology.model import Flow, Plan, Program, Replica, Service, Tier

#: What the names of namespaces and cables begin with, so that they are not those of phase 1.
PREFIX = "p3-"
#: The bridge, and its port that leads into the tunnel.
BRIDGE, DEVICE = f"{PREFIX}tunnel", f"{PREFIX}vxlan"
#: The name of the tier.
TIER = "tunnel"


class NoAddressError(ValueError):
    """The tunnel's subnet has no room for all; the text says how many addresses are wanted."""


@dataclass(frozen=True, slots=True)
class Stretched:
    """``plan`` is the plan as it is there: one tier, whose services are those that talk through the tunnel.

    ``bridges`` has the address of each host's bridge, by the host's name, in the plan's order: the hosts that the
    tunnel joins; empty if nobody talks through it. ``mtu`` is that of the tunnel, in bytes.
    """

    plan: Plan
    bridges: Mapping[str, IPv4Interface]
    mtu: int

    def endpoint(self, host: str) -> IPv4Address:
        """Return the underlay address of a host, between which the tunnel's packets go."""
        return self.plan.host(host).address.ip

    def peers(self, host: str) -> tuple[str, ...]:
        """Return the other hosts of the tunnel."""
        return tuple(name for name in self.bridges if name != host)

    def namespaces(self, host: str) -> frozenset[str]:
        """Return the namespaces that stand on a host."""
        return frozenset(item.namespace for service in self.plan.services_on(host) for item in service.replicas)

    def links(self, host: str) -> frozenset[str]:
        """Return the links of a host's own: the bridge, its port into the tunnel, and the cables to its namespaces."""
        if host not in self.bridges:
            return frozenset()
        cables = {item.link for service in self.plan.services_on(host) for item in service.replicas}
        return frozenset({BRIDGE, DEVICE} | cables)


def across(plan: Plan) -> Stretched:
    """Return the plan as the tunnel has it.

    NoAddressError if its subnet is too small, which the plan was checked for.
    """
    flows = tuple(flow for flow in plan.flows if _joins(plan, flow))
    sources, targets = ({getattr(flow, end) for flow in flows} for end in ("source", "target"))
    homes = {
        service.name: _home(plan, service, targets) for service in plan.services if service.name in sources | targets
    }
    hosts = [host.name for host in plan.hosts if host.name in homes.values()]
    bridges = {name: _numbered(plan, number) for number, name in enumerate(hosts, start=1)}
    inside = [service for service in plan.services if service.name in homes]
    wanted, last = sum(len(service.replicas) for service in inside), plan.tunnel.subnet.num_addresses - 2
    if len(hosts) + wanted > last:
        raise NoAddressError(f"{len(hosts) + wanted} addresses: one for each host, and one for each replica")
    services, following = [], max(FIRST, len(hosts) + 1)
    if following + wanted - 1 > last:
        following = len(hosts) + 1
    for service in inside:
        services.append(_moved(plan, service, homes[service.name], following))
        following += len(service.replicas)
    first = next(iter(bridges.values()), _numbered(plan, 1))
    tier = Tier(TIER, plan.tunnel.subnet, first, BRIDGE, hosts[0] if hosts else None)
    laid_out = replace(plan, tiers=(tier,), services=tuple(services), flows=flows, published=())
    return Stretched(laid_out, bridges, plan.underlay.mtu - OVERHEAD)


def _joins(plan: Plan, flow: Flow) -> bool:
    ends = (plan.service(flow.source).program, plan.service(flow.target).program)
    return ends == (Program.GATEWAY, Program.PRODUCT)


def _home(plan: Plan, service: Service, targets: set[str]) -> str:
    """Return the host of a service: who is called stands where none of his callers is, so that there is a way to go."""
    if service.name not in targets:
        return service.host
    names = [host.name for host in plan.hosts]
    callers = {
        plan.service(flow.source).host for flow in plan.flows if flow.target == service.name and _joins(plan, flow)
    }
    return next((name for name in names if name not in callers), service.host)


def _moved(plan: Plan, service: Service, host: str, first: int) -> Service:
    replicas = tuple(
        Replica(
            f"{PREFIX}{item.name}", service.name, item.number, _numbered(plan, number), link_name(PREFIX + item.name)
        )
        for number, item in enumerate(service.replicas, start=first)
    )
    return replace(service, tier=TIER, host=host, egress=False, replicas=replicas)


def _numbered(plan: Plan, number: int) -> IPv4Interface:
    subnet = plan.tunnel.subnet
    return interface_in(subnet, subnet.network_address + number)
