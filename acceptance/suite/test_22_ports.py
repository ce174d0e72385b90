"""Ports: between all replicas every port but the service's own is closed, whether anybody listens there or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pytest

from acceptance.suite import chance, flows
from acceptance.suite.flows import Pair
from acceptance.suite.stage import Seat, Stage
from acceptance.traffic import DNS_PORT, Attempt, Outcome
from underlay.topology import Plan

#: Ports of chance, so many of each range: those of root's (RFC 6335, section 6), and all others.
_LOW, _HIGH, _EACH = range(1, 1024), range(1024, 65536), 2


@dataclass(frozen=True, slots=True)
class Knocks:
    """What came of it by pair, and what the ports of chance were chosen by."""

    seed: int
    outcomes: Mapping[str, Sequence[Outcome]]


@pytest.fixture(scope="module")
def knocks(stage: Stage) -> Knocks:
    """Knock at all of them, in one run a host; by pair."""
    seed = chance.seed(chance.PORTS)
    draw = chance.drawn_by(seed)
    some = [*draw.sample(_LOW, _EACH), *draw.sample(_HIGH, _EACH)]
    found: dict[str, list[Outcome]] = {}
    seats = {seat.name: seat for seat in stage.seats()}
    for name in stage.by_host():
        pairs = [pair for pair in flows.all_pairs(stage.plan) if seats[pair.source.name].host == name]
        ways = {pair.name: (seats[pair.source.name], seats[pair.target.name]) for pair in pairs}
        attempts = {pair: list(_attempts(stage.plan, *way, some)) for pair, way in ways.items()}
        results = iter(stage.prober(name).attempt([item for each in attempts.values() for item in each]))
        found |= {pair: [next(results) for _ in each] for pair, each in attempts.items()}
    return Knocks(seed, found)


def _attempts(plan: Plan, source: Seat, target: Seat, some: Sequence[int]) -> Iterator[Attempt]:
    """Yield each port of the plan by TCP but the service's own, that one by UDP, DNS by both, and some by either."""
    planned = {service.port for service in plan.services} | {entry.port for entry in plan.published}
    own = target.service.port
    for port in sorted({*planned, DNS_PORT, plan.tunnel.port, *some} - {own}):
        yield source.attempt("tcp", target.address, port)
    for port in sorted({own, DNS_PORT, some[-1]}):
        yield source.attempt("udp", target.address, port)


def test_every_other_port_is_denied(knocks: Knocks, pair: Pair, stage: Stage) -> None:
    print(f"to repeat: {chance.PORTS}={knocks.seed}")
    for outcome in knocks.outcomes[pair.name]:
        stage.assert_denied(outcome)
