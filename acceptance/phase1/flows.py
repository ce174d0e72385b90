"""The flow matrix: every replica to every other one, by TCP, UDP and ICMP, measured in one run a host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from acceptance.traffic import Attempt, Listener, Outcome, Prober
from underlay.hosts.base import Lab
from underlay.topology import Plan, Replica, Service

SERVICE, OTHER, UDP, ICMP = "the service's port", "another port", "udp", "icmp"
#: What a pair of replicas is tried with.
WAYS = (SERVICE, OTHER, UDP, ICMP)


@dataclass(frozen=True, slots=True)
class Pair:
    """Who connects, and to whom."""

    source_service: Service
    source: Replica
    target_service: Service
    target: Replica
    allowed: bool

    @property
    def name(self) -> str:
        """The name in the report: ``gateway-1->redis-1:6379``."""
        return f"{self.source.name}->{self.target.name}:{self.target_service.port}"


@dataclass(frozen=True, slots=True)
class Matrix:
    """What came of all attempts, by way and the names of the two; and the controls.

    ``listening`` has, by target, the host's own connection to its service; ``own`` has, by way and target, what the
    target's own namespace can reach of itself, which no rule stands between. ``heard`` is what each target's own UDP
    listener heard.
    """

    outcomes: Mapping[tuple[str, str, str], Outcome]
    listening: Mapping[str, Outcome]
    own: Mapping[tuple[str, str], Outcome]
    heard: Mapping[str, Sequence[str]]

    def of(self, way: str, pair: Pair) -> Outcome:
        """Return what came of one attempt."""
        return self.outcomes[way, pair.source.name, pair.target.name]


def all_pairs(plan: Plan) -> Iterator[Pair]:
    """Yield each ordered pair of replicas."""
    for source_service, source in plan.replicas():
        for target_service, target in plan.replicas():
            if source != target:
                allowed = plan.allows(source_service.name, target_service.name)
                yield Pair(source_service, source, target_service, target, allowed)


def measure(lab: Lab, ways: Sequence[str] = WAYS) -> Matrix:
    """Make all attempts: one run on each host that services run on, one attempt after the other."""
    plan = lab.plan
    hosts = [host for host in lab.hosts if plan.services_on(host)]
    probers = {host: Prober(lab.hosts[host], plan) for host in hosts}
    targets = {host: [item for service in plan.services_on(host) for item in service.replicas] for host in hosts}
    services = {item.name: service for service, item in plan.replicas()}
    outcomes: dict[tuple[str, str, str], Outcome] = {}
    listening: dict[str, Outcome] = {}
    own: dict[tuple[str, str], Outcome] = {}
    with ExitStack() as stack:
        ports: dict[str, tuple[int, int]] = {}
        listeners = {}
        for host in hosts:
            wanted = [Listener(kind, item.namespace) for item in targets[host] for kind in ("tcp", "udp")]
            listeners[host] = stack.enter_context(probers[host].listening(wanted))
            found = listeners[host].ports
            pairs_of_ports = zip(found[::2], found[1::2], strict=True)
            ports |= {item.name: pair for item, pair in zip(targets[host], pairs_of_ports, strict=True)}

        def attempt(way: str, source: Replica | None, target: Replica) -> Attempt:
            tcp, udp = ports[target.name]
            kind, port = {
                SERVICE: ("tcp", services[target.name].port),
                OTHER: ("tcp", tcp),
                UDP: ("udp", udp),
                ICMP: ("icmp", target.number),
            }[way]
            return Attempt(kind, str(target.ip), port, source.namespace if source else None)

        for host in hosts:
            pairs = [pair for pair in all_pairs(plan) if pair.source_service.host == host]
            keys = [(way, pair.source.name, pair.target.name) for pair in pairs for way in ways]
            attempts = [attempt(way, pair.source, pair.target) for pair in pairs for way in ways]
            attempts += [attempt(SERVICE, None, item) for item in targets[host]]
            attempts += [attempt(way, item, item) for item in targets[host] for way in ways]
            results = iter(probers[host].attempt(attempts))
            outcomes |= {key: next(results) for key in keys}
            listening |= {item.name: next(results) for item in targets[host]}
            own |= {(way, item.name): next(results) for item in targets[host] for way in ways}
    heard = {
        item.name: listeners[host].seen[2 * place + 1] for host in hosts for place, item in enumerate(targets[host])
    }
    return Matrix(outcomes, listening, own, heard)


def assert_flow(matrix: Matrix, pair: Pair, plan: Plan) -> None:
    """Fail unless the attempt on the service's port came out as planned, and for the planned reason."""
    matrix.listening[pair.target.name].assert_connected()
    outcome = matrix.of(SERVICE, pair)
    if pair.allowed:
        outcome.assert_connected()
    else:
        outcome.assert_refused(plan.timeouts.connect)
