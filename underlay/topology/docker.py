"""The same shop as Docker has it: its networks, addresses and ports, derived from the plan. Pure.

Docker alone knows one host, so all containers are on one. A tier is a network there. A container that may connect into
another tier has an address in that network too, as a guest: Docker routes nothing between its networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from underlay.topology.derive import gateway_of, interface_in, interface_name
from underlay.topology.model import Plan, Published, Replica, Service, Tier

#: The TCP port of the registry, on the host of the containers (IANA has 5000 for another; Docker's documents use it).
REGISTRY_PORT = 5000
#: What is added to the number of a published port, so that both phases can publish.
PORT_STEP = 1000
#: How the names of all bridges begin.
BRIDGES = "p2-"
#: Prefix length of a network, unless more addresses are wanted in it.
PREFIX = 24


class NoRoomError(ValueError):
    """The pool has no room for all networks; the text says how many of which size would be wanted."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container's address in one network; ``native`` in that of its service's own tier."""

    tier: str
    address: IPv4Interface
    native: bool


@dataclass(frozen=True, slots=True)
class Containers:
    """``plan`` is the plan as it is there: subnets, bridges, hosts, addresses and published ports are Docker's.

    ``host`` runs all containers; None if there are none. ``default`` is the address of Docker's own default bridge.
    ``attachments`` has each replica's addresses by its name, the native one first.
    """

    plan: Plan
    host: str | None
    default: IPv4Interface
    attachments: Mapping[str, tuple[Attachment, ...]]

    def address(self, replica: Replica, tier: str) -> IPv4Address:
        """Return a replica's address in a tier's network; KeyError if it has none there."""
        for attachment in self.attachments[replica.name]:
            if attachment.tier == tier:
                return attachment.address.ip
        raise KeyError(tier)

    def internal(self, tier: Tier) -> bool:
        """Whether nobody of a tier may go out into the world, or be asked from there: its network leads nowhere."""
        published = {entry.service for entry in self.plan.published}
        inside = [service for service in self.plan.services if service.tier == tier.name]
        return not any(service.egress or service.name in published for service in inside)


def container_host(plan: Plan) -> str | None:
    """Return the host of all containers: where the shop is published, or else where its first service is."""
    if plan.published:
        return plan.published[0].host
    return plan.services[0].host if plan.services else None


def in_containers(plan: Plan) -> Containers:
    """Return the plan as Docker has it. NoRoomError if the pool is too small, which the plan was checked for."""
    host = container_host(plan)
    guests = dict(_guests(plan))
    default, subnets = _subnets(plan, guests)
    tiers = tuple(
        Tier(tier.name, subnets[tier.name], gateway_of(subnets[tier.name]), bridge_name(tier.name),
             host if tier.host else None)
        for tier in plan.tiers
    )  # fmt: skip
    services = tuple(_moved(service, plan, subnets[service.tier], host or service.host) for service in plan.services)
    attachments = {
        item.name: (
            Attachment(service.tier, item.address, native=True),
            *(
                Attachment(tier, _numbered(subnets[tier], number), native=False)
                for tier, number in guests.get(item.name, {}).items()
            ),
        )
        for service in services
        for item in service.replicas
    }
    published = tuple(Published(host or entry.host, entry.port + PORT_STEP, entry.service) for entry in plan.published)
    return Containers(
        replace(plan, tiers=tiers, services=services, published=published), host, gateway_of(default), attachments
    )


def bridge_name(tier: str) -> str:
    """Return the name of a network's bridge on the host (``p2-frontend``)."""
    return interface_name(f"{BRIDGES}{tier}")


def _guests(plan: Plan) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield each replica that has to be in other tiers, with its host number there: after those who are at home."""
    following = {
        tier.name: 1 + max((_number(plan, item) for service, item in plan.replicas() if service.tier == tier.name),
                           default=1)
        for tier in plan.tiers
    }  # fmt: skip
    for service in plan.services:
        targets = {plan.service(flow.target).tier for flow in plan.flows if flow.source == service.name}
        others = [tier.name for tier in plan.tiers if tier.name in targets - {service.tier}]
        for item in service.replicas:
            numbers = {}
            for tier in others:
                numbers[tier] = following[tier]
                following[tier] += 1
            if numbers:
                yield item.name, numbers


def _subnets(plan: Plan, guests: Mapping[str, Mapping[str, int]]) -> tuple[IPv4Network, dict[str, IPv4Network]]:
    """Return the subnet of the default bridge, and that of each tier, one after the other in the pool."""
    largest = {tier.name: 1 for tier in plan.tiers}
    for service, item in plan.replicas():
        largest[service.tier] = max(largest[service.tier], _number(plan, item))
    for numbers in guests.values():
        for tier, number in numbers.items():
            largest[tier] = max(largest[tier], number)
    # A subnet's last address is for all, so a number n takes n + 2 of them.
    prefixes = {name: min(PREFIX, 32 - (number + 1).bit_length()) for name, number in largest.items()}
    pool, found = plan.pools.docker, []
    following = int(pool.network_address)
    for prefix in (PREFIX, *prefixes.values()):
        size = 1 << (32 - prefix)
        start = -(-following // size) * size
        following = start + size
        if following > int(pool.broadcast_address) + 1:
            sizes = ", ".join(f"/{prefix}" for prefix in prefixes.values())
            raise NoRoomError(f"one of /{PREFIX} for Docker's default bridge, and for the tiers {sizes}")
        found.append(IPv4Network((start, prefix)))
    return found[0], dict(zip(prefixes, found[1:], strict=True))


def _moved(service: Service, plan: Plan, subnet: IPv4Network, host: str) -> Service:
    replicas = tuple(replace(item, address=_numbered(subnet, _number(plan, item))) for item in service.replicas)
    return replace(service, host=host, replicas=replicas)


def _number(plan: Plan, replica: Replica) -> int:
    """Return a replica's host number in its tier."""
    subnet = plan.tier(plan.service(replica.service).tier).subnet
    return int(replica.ip) - int(subnet.network_address)


def _numbered(subnet: IPv4Network, number: int) -> IPv4Interface:
    return interface_in(subnet, subnet.network_address + number)
