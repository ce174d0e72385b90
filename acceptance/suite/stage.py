"""A phase as the suite sees it: where each replica of the plan is just now, and how a denial looks there.

A test is named by the plan when it is collected (:class:`Member`); where a replica is, is looked up when the test runs
(:class:`Seat`), since what an orchestrator runs may move. A phase adds one file, ``acceptance/PHASE/stage.py``, with
its stage in it; all of ``acceptance/suite`` then runs on it.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from acceptance.modules import LabHost
from acceptance.traffic import NAME_ERROR, NO_ERROR, Attempt, Outcome, Prober, Resolved
from underlay.errors import InputError, Problem
from underlay.hosts.base import Host, Lab
from underlay.topology import Plan, Program, Replica, Service, Tier, in_containers
from underlay.topology.docker import REGISTRY_PORT

if TYPE_CHECKING:
    from acceptance.suite.cases import Visit

#: The programs that are given a password of the database.
WITH_PASSWORD = frozenset({Program.PRODUCT, Program.ORDER})


@dataclass(frozen=True, slots=True)
class Member:
    """A replica with what it belongs to, as the plan says it."""

    replica: Replica
    service: Service
    tier: Tier

    @property
    def name(self) -> str:
        """The replica's name."""
        return self.replica.name


@dataclass(frozen=True, slots=True)
class Seat:
    """A replica where it is at this moment.

    ``space`` is the path of its network namespace, as setns(2) takes it: a named one, or a container's.
    """

    member: Member
    host: str
    space: str
    address: IPv4Address

    @property
    def name(self) -> str:
        """The replica's name."""
        return self.member.name

    @property
    def replica(self) -> Replica:
        """The replica as planned."""
        return self.member.replica

    @property
    def service(self) -> Service:
        """Its service."""
        return self.member.service

    @property
    def tier(self) -> Tier:
        """Its service's tier."""
        return self.member.tier

    def attempt(self, kind: str, address: IPv4Address, port: int, payload: str = "", *, reply: bool = False) -> Attempt:
        """Return an attempt from here; see ``acceptance/probe.py``."""
        return Attempt(kind, str(address), port, self.space, payload, reply, who=self.name)


class Stage(ABC):
    """One phase on one lab. Its stopping and starting is the operator's way; killing and freezing is the kernel's."""

    #: The chain of the filter table in which denied packets are counted, and nothing else.
    deny_chain: ClassVar[str]
    #: What customers are told when all gateways have stopped: that they were refused (502), or did not answer (504).
    without_gateways: ClassVar[int] = 502
    #: A shell's line that gives a host settings of its own, which the phase changes: here those of one that was a
    #: router before, and drops what it does not know.
    own_settings: ClassVar[str] = "sysctl -qw net.ipv4.ip_forward=1; iptables -w -P FORWARD DROP"
    #: Files, and directories of files, that hold secrets.
    secrets: ClassVar[tuple[str, ...]] = ()

    def __init__(self, lab: Lab, phase: str) -> None:
        self.lab = lab
        self.phase = phase

    @staticmethod
    def laid_out(plan: Plan) -> Plan:
        """Return the plan as the phase lays it out: its hosts, addresses and published ports are those of the phase."""
        return plan

    @abstractmethod
    def seat(self, member: Member) -> Seat:
        """Return where a replica is now."""

    @abstractmethod
    def enter(self, seat: Seat) -> Sequence[str]:
        """Return the words that, put before a program of the host, run it in a replica's network with its resolver."""

    @abstractmethod
    def resolver(self, seat: Seat) -> IPv4Address:
        """Return the address at which a replica asks for names."""

    @abstractmethod
    def names(self, seat: Seat) -> Mapping[str, frozenset[IPv4Address]]:
        """Return each name that a replica knows, with the addresses that it is told."""

    def reverse(self, seat: Seat) -> Mapping[IPv4Address, str]:
        """Return each address that a replica can ask for backwards, with the one name that it is told; here: none."""
        return {}

    def unknown(self, seat: Seat) -> tuple[int, str]:
        """Return how a replica is told that there is no such name: DNS's code, and the resolver's word for it."""
        return NAME_ERROR, "EAI_NONAME"

    def lacking(self, seat: Seat, kind: str) -> int:
        """Return DNS's code for records of a kind that nobody has, of a name that there is."""
        return NO_ERROR

    def serves(self, host: str) -> frozenset[int]:
        """Return the TCP ports on which a host serves others, because of any phase."""
        containers = in_containers(self.lab.plan)
        every = (*self.lab.plan.published, *containers.plan.published)
        registry = {REGISTRY_PORT} if host == containers.host else set()
        return frozenset(registry | {entry.port for entry in every if entry.host == host})

    @abstractmethod
    def user(self, seat: Seat) -> str:
        """Return the user that a replica runs as: its name, or the number of one that the host does not know."""

    def uid(self, seat: Seat) -> int:
        """Return the number of the user that a replica runs as."""
        name = self.user(seat)
        return int(name) if name.isdecimal() else int(LabHost(self.machine(seat), self.plan).user(name).uid)

    @abstractmethod
    def secret(self, seat: Seat) -> str:
        """Return the file that holds the password of a replica's service."""

    def keepers(self, host: str) -> frozenset[str]:
        """Return the users of a host who may own a secret: those whose service has one, and root."""
        served = (seat for seat in self.seats(host) if seat.service.program in WITH_PASSWORD)
        return frozenset({"root", *(self.user(seat) for seat in served)})

    def superusers(self, seat: Seat) -> frozenset[str]:
        """Return the users whom a database lets in by its socket as its superuser."""
        return frozenset({"root", self.user(seat)})

    def become(self, seat: Seat, user: str) -> Sequence[str]:
        """Return the words that, put before a program, run it where a replica is, as a user."""
        return () if user == "root" else ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--")

    @abstractmethod
    def room(self, seat: Seat) -> frozenset[str]:
        """Return the directories in which a replica may write, besides those in which everybody may."""

    @abstractmethod
    def stop(self, seat: Seat) -> None:
        """Stop a replica as an operator does, and keep it so. No error if it has stopped."""

    @abstractmethod
    def start(self, seat: Seat) -> None:
        """Start it again. No error if it runs."""

    def leads_to(self, seat: Seat, tier: Tier) -> bool:
        """Whether a replica's own kernel knows a way to a tier, so that a rule has to stop it."""
        return True

    @contextmanager
    def held(self, seats: Sequence[Seat]) -> Iterator[Sequence[Seat]]:
        """Lend the places of stopped replicas, with their networks and addresses."""
        yield seats

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Have something answer at each service's port; here the services do."""
        yield

    @contextmanager
    def watching(self, host: Host) -> Iterator[None]:
        """Watch, if the phase wants to, while it is taken away from a host and made again."""
        yield

    @abstractmethod
    def seen_as(self, visit: Visit) -> IPv4Address:
        """Return the address that a published service should see a visit come from."""

    @abstractmethod
    def query(self, seat: Seat, statement: str) -> str:
        """Ask a database as its superuser, and return what it prints."""

    def leave_behind(self, host: Host) -> None:  # noqa: B027 - nothing, where programs leave nothing
        """Have programs of a host killed so that they leave behind what they can: a removal has to cope with it."""

    def data(self, host: Host) -> Sequence[str]:
        """Return the paths of what a phase keeps on a host's disk where no snapshot looks; here: nothing."""
        return ()

    @property
    def plan(self) -> Plan:
        """The plan that the lab is up with, as the phase lays it out."""
        return self.laid_out(self.lab.plan)

    def source(self, seat: Seat, target: Seat) -> IPv4Address:
        """Return the address that a replica has towards another one."""
        return seat.address

    def sources(self, seat: Seat) -> frozenset[IPv4Address]:
        """Return the addresses that a replica may go out with."""
        return frozenset({seat.address})

    def seats(self, host: str | None = None) -> tuple[Seat, ...]:
        """Return where all replicas are; with a host's name, those that are there."""
        every = (self.seat(member) for member in members(self.plan))
        return tuple(seat for seat in every if host in (None, seat.host))

    def by_host(self) -> Mapping[str, tuple[Seat, ...]]:
        """Return the replicas of each host that has any."""
        found: dict[str, list[Seat]] = {}
        for seat in self.seats():
            found.setdefault(seat.host, []).append(seat)
        return MappingProxyType({name: tuple(found[name]) for name in self.lab.hosts if name in found})

    def machine(self, seat: Seat) -> Host:
        """Return the host that a replica is on."""
        return self.lab.hosts[seat.host]

    def prober(self, host: str) -> Prober:
        """Return traffic from a host and its namespaces, with the eye on what is denied there."""
        busy = any(seat.host == host for seat in self.seats())
        return Prober(self.lab.hosts[host], self.plan, chain=self.deny_chain if busy else None)

    def inside(self, seat: Seat) -> LabHost:
        """Return testinfra's view of a replica's network."""
        return LabHost(self.machine(seat), self.plan, enter=self.enter(seat), name=seat.name)

    def resolve(self, seat: Seat, names: Sequence[str]) -> Mapping[str, Resolved]:
        """Ask the resolver as a program of the replica does, its own resolv.conf and all."""
        return self.prober(seat.host).resolve(names, self.enter(seat))

    def assert_denied(self, outcome: Outcome) -> None:
        """Fail unless an attempt was denied as phases do it: TCP refused at once, all else dropped; and counted."""
        if outcome.attempt.kind == "tcp":
            outcome.assert_refused(self.plan.timeouts.connect)
        else:
            outcome.assert_dropped()


def members(plan: Plan) -> Iterator[Member]:
    """Yield every replica with what it belongs to."""
    for service, replica in plan.replicas():
        yield Member(replica, service, plan.tier(service.tier))


def load(phase: str, lab: Lab) -> Stage:
    """Return a phase's stage on a lab; raises as ``stage_of``."""
    return stage_of(phase)(lab, phase)


def stage_of(phase: str) -> type[Stage]:
    """Return a phase's stage: the one class of that kind in ``acceptance/PHASE/stage.py``.

    InputError if there is no such phase, or not one stage in it.
    """
    name = f"acceptance.{phase}.stage"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not name.startswith(error.name or "?"):
            raise
        raise InputError(Problem("--phase", f"there is no phase {phase}: {error}", f"add {name}")) from None
    found = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == name]
    stages = [item for item in found if issubclass(item, Stage)]
    if len(stages) != 1:
        names = ", ".join(item.__name__ for item in stages) or "none"
        raise InputError(
            Problem(str(module.__file__), f"expected: one stage; seen: {names}", "see acceptance/suite/stage.py")
        )
    return stages[0]
