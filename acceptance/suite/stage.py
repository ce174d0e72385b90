"""A phase as the suite sees it: where each replica of the plan is just now, and how a denial looks there.

A test is named by the plan when it is collected (:class:`Member`); where a replica is, is looked up when the test runs
(:class:`Seat`), since what an orchestrator runs may move. A phase adds one file, ``acceptance/PHASE/stage.py``, with
its stage in it; all of ``acceptance/suite`` then runs on it.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from acceptance.modules import LabHost
from acceptance.traffic import Attempt, Outcome, Prober, Resolved
from underlay.errors import InputError, Problem
from underlay.hosts.base import Host, Lab
from underlay.topology import Plan, Replica, Service, Tier

if TYPE_CHECKING:
    from acceptance.suite.cases import Visit


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
    #: Files, and directories of files, that hold secrets.
    secrets: ClassVar[tuple[str, ...]] = ()

    def __init__(self, lab: Lab, phase: str) -> None:
        self.lab = lab
        self.phase = phase

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

    @abstractmethod
    def user(self, seat: Seat) -> str:
        """Return the user that a replica runs as."""

    @abstractmethod
    def secret(self, seat: Seat) -> str:
        """Return the file that holds the password of a replica's service."""

    @abstractmethod
    def room(self, seat: Seat) -> frozenset[str]:
        """Return the directories in which a replica may write, besides those in which everybody may."""

    @abstractmethod
    def stop(self, seat: Seat) -> None:
        """Stop a replica as an operator does, and keep it so. No error if it has stopped."""

    @abstractmethod
    def start(self, seat: Seat) -> None:
        """Start it again. No error if it runs."""

    @abstractmethod
    def seen_as(self, visit: Visit) -> IPv4Address:
        """Return the address that a published service should see a visit come from."""

    @abstractmethod
    def query(self, seat: Seat, statement: str) -> str:
        """Ask a database as its superuser, and return what it prints."""

    def leave_behind(self, host: Host) -> None:  # noqa: B027 - nothing, where programs leave nothing
        """Have programs of a host killed so that they leave behind what they can: a removal has to cope with it."""

    @property
    def plan(self) -> Plan:
        """The plan that the lab is up with."""
        return self.lab.plan

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
    """Return a phase's stage on a lab: the one class of that kind in ``acceptance/PHASE/stage.py``.

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
    return stages[0](lab, phase)
