"""The plan as immutable values. Nothing here reads files or the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TypeVar


class Program(StrEnum):
    """What a service runs. The plan may use one program for several services."""

    NGINX = "nginx"
    GATEWAY = "gateway"
    PRODUCT = "product"
    ORDER = "order"
    REDIS = "redis"
    POSTGRES = "postgres"


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of the lab. ``address`` carries the underlay's prefix length; ``memory`` is in MiB."""

    name: str
    address: IPv4Interface
    cpus: int
    memory: int


@dataclass(frozen=True, slots=True)
class Underlay:
    """The wire between the hosts; ``gateway`` is the machine that runs the tests; ``mtu`` in bytes."""

    subnet: IPv4Network
    gateway: IPv4Interface
    mtu: int


@dataclass(frozen=True, slots=True)
class Tier:
    """A subnet on a bridge. ``gateway`` is the bridge's own address (the subnet's first)."""

    name: str
    subnet: IPv4Network
    gateway: IPv4Interface
    bridge: str
    host: str | None
    """The host that carries the bridge, or None while no service is in the tier."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One running instance of a service, in a namespace of its own.

    ``namespace`` and ``name`` are the same word (``gateway-1``); ``link`` is the host's end of its veth pair.
    """

    name: str
    service: str
    number: int
    address: IPv4Interface
    link: str

    @property
    def namespace(self) -> str:
        """Name of the network namespace."""
        return self.name

    @property
    def ip(self) -> IPv4Address:
        """The address without its prefix length."""
        return self.address.ip


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the shop: where it runs, on which TCP port it listens, and its replicas."""

    name: str
    tier: str
    host: str
    program: Program
    port: int
    egress: bool
    replicas: tuple[Replica, ...]


@dataclass(frozen=True, slots=True)
class Flow:
    """``source`` may open TCP connections to ``target``'s port (both are service names)."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Published:
    """TCP ``port`` of ``host`` leads to ``service``."""

    host: str
    port: int
    service: str


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The hand-made VXLAN: its VNI, UDP port and the subnet on it."""

    vni: int
    port: int
    subnet: IPv4Network


@dataclass(frozen=True, slots=True)
class Pools:
    """Address ranges that Docker and Swarm are told to use."""

    docker: IPv4Network
    swarm: IPv4Network


@dataclass(frozen=True, slots=True)
class Timeouts:
    """All in seconds; see topology.yaml."""

    connect: float
    command: float
    ready: float
    cache: float


_Named = TypeVar("_Named", Host, Tier, Service)


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole plan, valid by construction: :func:`underlay.topology.load_plan` makes it."""

    lab: str
    domain: str
    hosts: tuple[Host, ...]
    underlay: Underlay
    pools: Pools
    tiers: tuple[Tier, ...]
    services: tuple[Service, ...]
    flows: tuple[Flow, ...]
    published: tuple[Published, ...]
    tunnel: Tunnel
    timeouts: Timeouts

    @property
    def inside(self) -> tuple[IPv4Network, ...]:
        """All ranges that the lab has for what stands on its hosts: who may leave the lab does not come into these."""
        tiers = tuple(tier.subnet for tier in self.tiers)
        return (*tiers, self.pools.docker, self.pools.swarm, self.tunnel.subnet)

    def host(self, name: str) -> Host:
        """Return the host of that name; KeyError if there is none."""
        return _named(self.hosts, name)

    def tier(self, name: str) -> Tier:
        """Return the tier of that name; KeyError if there is none."""
        return _named(self.tiers, name)

    def service(self, name: str) -> Service:
        """Return the service of that name; KeyError if there is none."""
        return _named(self.services, name)

    def tiers_on(self, host: str) -> tuple[Tier, ...]:
        """Return the tiers whose bridge is on that host."""
        return tuple(tier for tier in self.tiers if tier.host == host)

    def services_on(self, host: str) -> tuple[Service, ...]:
        """Return the services that run on that host."""
        return tuple(service for service in self.services if service.host == host)

    def replicas(self) -> Iterator[tuple[Service, Replica]]:
        """Every replica with its service, in the plan's order."""
        for service in self.services:
            for replica in service.replicas:
                yield service, replica

    def allows(self, source: str, target: str) -> bool:
        """Whether service ``source`` may connect to service ``target``."""
        return Flow(source, target) in self.flows

    def patient(self, factor: float) -> Plan:
        """Return the same plan that waits longer for commands and programs, for hosts slower than usual.

        How long one connection may take stays: services are configured with it.
        """
        times = self.timeouts
        longer = replace(times, command=times.command * factor, ready=times.ready * factor)
        return replace(self, timeouts=longer)

    def targets(self, source: str, program: Program) -> tuple[Service, ...]:
        """Return the services running ``program`` that ``source`` may connect to."""
        names = [flow.target for flow in self.flows if flow.source == source]
        return tuple(service for name in names if (service := self.service(name)).program is program)


def _named(values: tuple[_Named, ...], name: str) -> _Named:
    for value in values:
        if value.name == name:
            return value
    raise KeyError(name)
