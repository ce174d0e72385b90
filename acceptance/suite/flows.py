"""The flow matrix: every replica to every other one, by TCP, UDP and ICMP, measured in one run a host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address

from acceptance.suite.stage import Member, Seat, Stage, members
from acceptance.traffic import Listener, Outcome, outward
from underlay.topology import Plan

SERVICE, OTHER, UDP, ICMP = "the service's port", "another port", "udp", "icmp"
#: What a pair of replicas is tried with.
WAYS = (SERVICE, OTHER, UDP, ICMP)


@dataclass(frozen=True, slots=True)
class Pair:
    """Who connects, and to whom."""

    source: Member
    target: Member
    allowed: bool

    @property
    def name(self) -> str:
        """The name in the report: ``gateway-1->redis-1:6379``."""
        return f"{self.source.name}->{self.target.name}:{self.target.service.port}"


@dataclass(frozen=True, slots=True)
class Matrix:
    """What came of all attempts, by way and the names of the two; and the controls.

    ``listening`` has, by target, the host's own connection to its service; ``own`` has, by way and target, what the
    target's own namespace can reach of itself, which no rule stands between. ``heard`` is whom each target's own UDP
    listener heard besides itself.
    """

    outcomes: Mapping[tuple[str, str, str], Outcome]
    listening: Mapping[str, Outcome]
    own: Mapping[tuple[str, str], Outcome]
    heard: Mapping[str, Sequence[str]]

    def of(self, way: str, pair: Pair) -> Outcome:
        """Return what came of one attempt."""
        return self.outcomes[way, pair.source.name, pair.target.name]

    def heard_from(self, pair: Pair) -> list[str]:
        """Return what the target's UDP listener heard from the source, or from somebody whom nobody knows."""
        sources = {outcome.local: source for (way, source, _), outcome in self.outcomes.items() if way == UDP}
        every = self.heard[pair.target.name]
        return [peer for peer in every if sources.get(peer, pair.source.name) == pair.source.name]


def all_pairs(plan: Plan) -> Iterator[Pair]:
    """Yield each ordered pair of replicas."""
    for source in members(plan):
        for target in members(plan):
            if source != target:
                yield Pair(source, target, plan.allows(source.service.name, target.service.name))


def measure(stage: Stage, ways: Sequence[str] = WAYS) -> Matrix:
    """Make all attempts: one run on each host that has replicas, one attempt after the other."""
    plan, places = stage.plan, stage.by_host()
    seats = {seat.name: seat for here in places.values() for seat in here}
    probers = {host: stage.prober(host) for host in places}
    outcomes: dict[tuple[str, str, str], Outcome] = {}
    listening: dict[str, Outcome] = {}
    own: dict[tuple[str, str], Outcome] = {}
    with ExitStack() as stack:
        ports: dict[str, tuple[int, int]] = {}
        listeners = {}
        for host, here in places.items():
            wanted = [Listener(kind, seat.space) for seat in here for kind in ("tcp", "udp")]
            listeners[host] = stack.enter_context(probers[host].listening(wanted))
            found = listeners[host].ports
            pairs_of_ports = zip(found[::2], found[1::2], strict=True)
            ports |= {seat.name: pair for seat, pair in zip(here, pairs_of_ports, strict=True)}

        def goal(way: str, target: Seat) -> tuple[str, IPv4Address, int]:
            tcp, udp = ports[target.name]
            kind, port = {
                SERVICE: ("tcp", target.service.port),
                OTHER: ("tcp", tcp),
                UDP: ("udp", udp),
                ICMP: ("icmp", target.replica.number),
            }[way]
            return kind, target.address, port

        for host, here in places.items():
            pairs = [pair for pair in all_pairs(plan) if seats[pair.source.name].host == host]
            keys = [(way, pair.source.name, pair.target.name) for pair in pairs for way in ways]
            attempts = [seats[source].attempt(*goal(way, seats[target])) for way, source, target in keys]
            attempts += [outward(*goal(SERVICE, seat)) for seat in here]
            attempts += [seat.attempt(*goal(way, seat)) for seat in here for way in ways]
            results = iter(probers[host].attempt(attempts))
            outcomes |= {key: next(results) for key in keys}
            listening |= {seat.name: next(results) for seat in here}
            own |= {(way, seat.name): next(results) for seat in here for way in ways}
    heard = {
        seat.name: [peer for peer in listeners[host].seen[2 * place + 1] if not peer.startswith(f"{seat.address}:")]
        for host, here in places.items()
        for place, seat in enumerate(here)
    }
    return Matrix(outcomes, listening, own, heard)


def assert_flow(matrix: Matrix, pair: Pair, stage: Stage) -> None:
    """Fail unless the attempt on the service's port came out as planned, and for the planned reason."""
    matrix.listening[pair.target.name].assert_connected()
    outcome = matrix.of(SERVICE, pair)
    if pair.allowed:
        outcome.assert_connected()
    else:
        stage.assert_denied(outcome)


def assert_all(stage: Stage) -> None:
    """Fail unless what the plan allows connects, and nothing else does."""
    with stage.serving():
        matrix = measure(stage, (SERVICE,))
    for pair in all_pairs(stage.plan):
        assert_flow(matrix, pair, stage)
