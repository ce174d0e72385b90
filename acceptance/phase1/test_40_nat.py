"""Addresses that are rewritten: services that go out, and the published port from wherever it can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from acceptance.kernel import in_own_network, packets
from acceptance.phase1.cases import OUTSIDE, Seat, Visit, seats, visits
from acceptance.traffic import Attempt, Listener, Outcome, Prober
from underlay.hosts.base import Lab, Machine
from underlay.topology import Plan, Program

Probers = Mapping[str, Prober]


@dataclass(frozen=True, slots=True)
class Departures:
    """Connections from each namespace to a listener on another host; ``receiver`` is that host, ``seen`` its view.

    ``connections`` has the kernel's translations on each host afterwards, ``masqueraded`` the rise of the counters of
    the rules that translate.
    """

    receiver: Mapping[str, str]
    outcomes: Mapping[str, Outcome]
    control: Mapping[str, Outcome]
    connections: Mapping[str, str]
    masqueraded: Mapping[str, int]


@pytest.fixture(scope="module")
def departures(lab: Lab, plan: Plan, probers: Probers) -> Departures:
    """Go out from each namespace, in one run a host."""
    receiver: dict[str, str] = {}
    gone: dict[str, Outcome] = {}
    control: dict[str, Outcome] = {}
    connections: dict[str, str] = {}
    masqueraded: dict[str, int] = {}
    for host in lab.hosts.values():
        here = [seat for seat in seats(plan) if seat.service.host == host.name]
        away = next((item for item in lab.hosts.values() if item.name != host.name), None)
        if not here or away is None:
            continue
        with probers[away.name].listening([Listener("tcp")]) as listening:
            goal = (str(away.address), listening.ports[0])
            attempts = [Attempt("tcp", *goal, seat.replica.namespace, reply=True) for seat in here]
            before = packets(host, "-j MASQUERADE")
            control[host.name], *outcomes = probers[host.name].attempt([Attempt("tcp", *goal, reply=True), *attempts])
            masqueraded[host.name] = packets(host, "-j MASQUERADE") - before
            asked = host.run(["conntrack", "-L", "-p", "tcp", "--orig-port-dst", str(goal[1])])
        connections[host.name] = asked.stdout
        receiver[host.name] = away.name
        gone |= {seat.replica.name: outcome for seat, outcome in zip(here, outcomes, strict=True)}
    return Departures(receiver, gone, control, connections, masqueraded)


def _needs_another_host(departures: Departures, seat: Seat) -> None:
    if seat.service.host not in departures.receiver:
        pytest.skip("the plan has no other host to go to")


def test_egress_is_seen_as_the_host(departures: Departures, egress_seat: Seat, plan: Plan) -> None:
    _needs_another_host(departures, egress_seat)
    name, address = egress_seat.replica.name, plan.host(egress_seat.service.host).address.ip
    outcome = departures.outcomes[name]
    outcome.assert_connected()
    receiver = departures.receiver[egress_seat.service.host]
    seen = outcome.reply_text.rpartition(":")[0]
    assert seen == str(address), f"{receiver}: expected: {name} comes from {address}; seen: {outcome.reply_text}"


def test_egress_is_translated_by_the_kernel(departures: Departures, egress_seat: Seat, plan: Plan) -> None:
    """Conntrack has that very connection, with the answer addressed to the host."""
    _needs_another_host(departures, egress_seat)
    host, outcome = plan.host(egress_seat.service.host), departures.outcomes[egress_seat.replica.name]
    outcome.assert_connected()
    line = next(
        (
            line
            for line in departures.connections[host.name].splitlines()
            if f"src={egress_seat.replica.ip} " in line and f"sport={outcome.local_port} " in line
        ),
        "",
    )
    answer = f"src={outcome.attempt.address} dst={host.address.ip} sport={outcome.attempt.port} "
    assert answer in line, f"{host.name}: expected in conntrack: {answer}; seen: {line or 'no such connection'}"


def test_masquerade_counters_move(departures: Departures, plan: Plan, busy_host: str) -> None:
    leaving = [seat for seat in seats(plan) if seat.service.host == busy_host and seat.service.egress]
    if not leaving or busy_host not in departures.receiver:
        pytest.skip(f"nobody on {busy_host} may go out, or there is no other host to go to")
    seen = departures.masqueraded[busy_host]
    assert seen >= len(leaving), f"{busy_host}: expected: MASQUERADE counted {len(leaving)} or more; seen: {seen}"


def test_no_egress_is_refused(departures: Departures, confined_seat: Seat, plan: Plan) -> None:
    _needs_another_host(departures, confined_seat)
    departures.control[confined_seat.service.host].assert_connected()
    departures.outcomes[confined_seat.replica.name].assert_refused(plan.timeouts.connect)


@dataclass(frozen=True, slots=True)
class Sorties:
    """What came of going out by each protocol, to another host and to the outside: by host, and by confined replica."""

    controls: Mapping[str, Sequence[Outcome]]
    outcomes: Mapping[str, Sequence[Outcome]]


@pytest.fixture(scope="module")
def sorties(lab: Lab, plan: Plan, probers: Probers) -> Sorties:
    """Go out from each host, and from its namespaces that may not, in one run a host and goal."""
    controls: dict[str, list[Outcome]] = {}
    found: dict[str, list[Outcome]] = {}
    for host in lab.hosts.values():
        here = [seat for seat in seats(plan) if seat.service.host == host.name and not seat.service.egress]
        goals: list[Machine] = [item for item in lab.hosts.values() if item.name != host.name]
        if not in_own_network(lab.outside):  # which may have a firewall of its own
            goals.append(lab.outside)
        for goal in goals if here else ():
            with probers[goal.name].listening([Listener("tcp"), Listener("udp")]) as listening:
                tcp, udp = listening.ports
                ways = [("tcp", tcp), ("udp", udp), ("icmp", len(found) + 1)]
                spaces = [None, *(seat.replica.namespace for seat in here)]
                attempts = [Attempt(kind, str(goal.address), port, space) for space in spaces for kind, port in ways]
                results = iter(probers[host.name].attempt(attempts))
                for name, place in ((host.name, controls), *((seat.replica.name, found) for seat in here)):
                    place.setdefault(name, []).extend(next(results) for _ in ways)
    return Sorties(controls, found)


def test_no_egress_by_any_protocol_to_anywhere(sorties: Sorties, confined_seat: Seat, plan: Plan) -> None:
    for outcome in sorties.controls[confined_seat.service.host]:
        outcome.assert_connected()
    for outcome in sorties.outcomes[confined_seat.replica.name]:
        if outcome.attempt.kind == "tcp":
            outcome.assert_refused(plan.timeouts.connect)
        else:
            outcome.assert_dropped()


@pytest.fixture(scope="module")
def arrivals(plan: Plan, probers: Probers) -> Mapping[str, Outcome]:
    """Use the published ports from everywhere, in one run a machine; by the visit's name."""
    found: dict[str, Outcome] = {}
    every = list(visits(plan))
    for machine in dict.fromkeys(visit.machine for visit in every):
        here = [visit for visit in every if visit.machine == machine]
        attempts = [
            Attempt("http", str(visit.address), visit.entry.port, visit.namespace, path="/health") for visit in here
        ]
        outcomes = probers[machine].attempt(attempts)
        found |= {visit.name: outcome for visit, outcome in zip(here, outcomes, strict=True)}
    return found


def test_published_port_answers(arrivals: Mapping[str, Outcome], visit: Visit, plan: Plan) -> None:
    """From everywhere, and the edge is told who asks.

    Another host and outside: their own address. The host: its own, and by 127.0.0.1 the bridge's. A namespace on the
    edge's bridge: the bridge's. A namespace of another tier: its own.
    """
    outcome = arrivals[visit.name]
    outcome.assert_connected()
    assert outcome.status == 200, f"expected: 200; seen: {outcome} {outcome.body}"
    if plan.service(visit.entry.service).program is Program.NGINX:
        seen = outcome.headers.get("x-client-address")
        assert seen == str(visit.seen_as), f"{visit.name}: expected: seen as {visit.seen_as}; seen as {seen}"


@pytest.fixture(scope="module")
def uninvited(plan: Plan, probers: Probers) -> Mapping[str, list[Outcome]]:
    """Use the published ports from those who may not go out, in one run a host; by replica."""
    found: dict[str, list[Outcome]] = {}
    for host in plan.hosts:
        here = [seat for seat in seats(plan) if seat.service.host == host.name and not seat.service.egress]
        keys = [(seat.replica, entry) for seat in here for entry in plan.published]
        attempts = [
            Attempt("tcp", str(plan.host(entry.host).address.ip), entry.port, replica.namespace)
            for replica, entry in keys
        ]
        for (replica, _), outcome in zip(keys, probers[host.name].attempt(attempts) if keys else (), strict=True):
            found.setdefault(replica.name, []).append(outcome)
    return found


def test_published_port_is_refused_without_egress(
    uninvited: Mapping[str, list[Outcome]], arrivals: Mapping[str, Outcome], confined_seat: Seat, plan: Plan
) -> None:
    if not plan.published:
        pytest.skip("the plan publishes nothing")
    for name, outcome in arrivals.items():
        if name.startswith(f"{OUTSIDE}->"):
            outcome.assert_connected()
    for outcome in uninvited[confined_seat.replica.name]:
        outcome.assert_refused(plan.timeouts.connect)
