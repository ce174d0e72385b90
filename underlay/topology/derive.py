"""What follows from the plan without being written in it: names, numbers, addresses, and the plan itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TypeVar

from underlay.topology.draft import FIRST, NEXT_FREE, Draft, ServiceDraft
from underlay.topology.model import (
    Flow,
    Host,
    Plan,
    Pools,
    Published,
    Replica,
    Service,
    Tier,
    Timeouts,
    Tunnel,
    Underlay,
)
from underlay.topology.notes import Marked

#: Bytes of a Linux interface name: IFNAMSIZ (16, linux/if.h) holds a NUL at its end.
LONGEST_INTERFACE = 15
_DIGITS = 6

T = TypeVar("T")


def interface_name(name: str) -> str:
    """Return ``name``, shortened to what Linux allows for an interface; the same name always becomes the same."""
    if len(name) <= LONGEST_INTERFACE:
        return name
    digest = sha256(name.encode()).hexdigest()[:_DIGITS]
    return f"{name[: LONGEST_INTERFACE - _DIGITS - 1]}-{digest}"


def bridge_name(tier: str) -> str:
    """Return the name of a tier's bridge (``br-frontend``)."""
    return interface_name(f"br-{tier}")


def replica_name(service: str, number: int) -> str:
    """Return the name of a replica and of its namespace (``gateway-1``); replicas count from 1."""
    return f"{service}-{number}"


def link_name(replica: str) -> str:
    """Return the name of the host's end of a replica's veth pair (``v-gateway-1``)."""
    return interface_name(f"v-{replica}")


def gateway_of(subnet: IPv4Network) -> IPv4Interface:
    """Return the bridge's address in a tier: the subnet's first."""
    return interface_in(subnet, subnet.network_address + 1)


def interface_in(subnet: IPv4Network, address: IPv4Address) -> IPv4Interface:
    """Return the address with the subnet's prefix length."""
    return IPv4Interface((address, subnet.prefixlen))


def first_numbers(services: tuple[ServiceDraft, ...]) -> dict[str, int]:
    """Return each service's first host number, by name; services whose tier or numbers are wrong are left out.

    A service that does not say takes the first free numbers, from FIRST on, after those of the services that stand
    before it in its tier; what any service of the tier says itself is not free.
    """
    said: dict[str, list[range]] = {}
    for service in services:
        if service.tier and service.first and service.replicas and service.first.value != NEXT_FREE:
            numbers = range(service.first.value, service.first.value + service.replicas.value)
            said.setdefault(service.tier.value, []).append(numbers)
    ends: dict[str, int] = {}
    found: dict[str, int] = {}
    for service in services:
        if not (service.tier and service.first and service.replicas):
            continue
        tier, count, first = service.tier.value, service.replicas.value, service.first.value
        if first == NEXT_FREE:
            first = ends.get(tier, FIRST)
            for taken in sorted(said.get(tier, ()), key=lambda numbers: numbers.start):
                if first < taken.stop and taken.start < first + count:
                    first = taken.stop
        found[service.name.value] = first
        ends[tier] = max(ends.get(tier, FIRST), first + count)
    return found


def flow_pairs(plan: Plan) -> Iterator[tuple[Replica, Service, Replica]]:
    """Yield every allowed connection as (who connects, the service connected to, its replica), in the plan's order."""
    for flow in plan.flows:
        target = plan.service(flow.target)
        for source in plan.service(flow.source).replicas:
            for replica in target.replicas:
                yield source, target, replica


def dns_names(plan: Plan) -> Mapping[str, tuple[IPv4Address, ...]]:
    """Return what each name of the plan's domain resolves to: a service to all its replicas, a replica to itself."""
    names: dict[str, tuple[IPv4Address, ...]] = {}
    for service in plan.services:
        names[f"{service.name}.{plan.domain}"] = tuple(replica.ip for replica in service.replicas)
        for replica in service.replicas:
            names[f"{replica.name}.{plan.domain}"] = (replica.ip,)
    return names


def build(draft: Draft) -> Plan:
    """Turn a draft in which nothing was found wrong into the plan."""
    wire = _sure(draft.underlay.subnet).value
    drafts = _given(draft.services)
    subnets = {tier.name.value: _sure(tier.subnet).value for tier in _given(draft.tiers)}
    firsts = first_numbers(drafts)
    services = tuple(
        _service(service, subnets[_sure(service.tier).value], firsts[service.name.value]) for service in drafts
    )
    carriers = {service.tier: service.host for service in services}
    return Plan(
        lab=_sure(draft.lab).value,
        domain=_sure(draft.domain).value,
        hosts=tuple(
            Host(
                name=host.name.value,
                address=interface_in(wire, _sure(host.address).value),
                cpus=_sure(host.cpus).value,
                memory=_sure(host.memory).value,
            )
            for host in _given(draft.hosts)
        ),
        underlay=Underlay(
            wire, interface_in(wire, _sure(draft.underlay.gateway).value), _sure(draft.underlay.mtu).value
        ),
        pools=Pools(_sure(draft.pools.docker).value, _sure(draft.pools.swarm).value),
        tiers=tuple(
            Tier(name, subnet, gateway_of(subnet), bridge_name(name), carriers.get(name))
            for name, subnet in subnets.items()
        ),
        services=services,
        flows=tuple(Flow(flow.source, flow.target) for flow in draft.flows),
        published=tuple(
            Published(_sure(entry.host).value, _sure(entry.port).value, _sure(entry.service).value)
            for entry in draft.published
        ),
        tunnel=Tunnel(_sure(draft.tunnel.vni).value, _sure(draft.tunnel.port).value, _sure(draft.tunnel.subnet).value),
        timeouts=Timeouts(
            connect=_sure(draft.timeouts.connect).value,
            command=_sure(draft.timeouts.command).value,
            ready=_sure(draft.timeouts.ready).value,
            cache=_sure(draft.timeouts.cache).value,
        ),
    )


def _service(draft: ServiceDraft, subnet: IPv4Network, first: int) -> Service:
    name = draft.name.value
    return Service(
        name=name,
        tier=_sure(draft.tier).value,
        host=_sure(draft.host).value,
        program=_sure(draft.program).value,
        port=_sure(draft.port).value,
        egress=draft.egress,
        replicas=tuple(
            _replica(name, number, interface_in(subnet, subnet.network_address + first + number - 1))
            for number in range(1, _sure(draft.replicas).value + 1)
        ),
    )


def _replica(service: str, number: int, address: IPv4Interface) -> Replica:
    name = replica_name(service, number)
    return Replica(name=name, service=service, number=number, address=address, link=link_name(name))


def _sure(value: Marked[T] | None) -> Marked[T]:
    if value is None:
        raise AssertionError("a value is missing although no mistake was noted")
    return value


def _given(values: tuple[T, ...] | None) -> tuple[T, ...]:
    if values is None:
        raise AssertionError("a section is missing although no mistake was noted")
    return values
