"""Addresses that are rewritten: services that go out, and the published port from wherever it can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest

from acceptance.kernel import in_own_network, packets
from acceptance.suite.arrivals import Probers, arrive, intrude
from acceptance.suite.cases import OUTSIDE, Visit
from acceptance.suite.flows import Pair, all_pairs
from acceptance.suite.stage import Seat, Stage
from acceptance.traffic import Listener, Outcome, outward
from underlay.hosts.base import Machine
from underlay.topology import Plan, Program


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
def departures(stage: Stage, probers: Probers) -> Departures:
    """Go out from each namespace, in one run a host."""
    receiver: dict[str, str] = {}
    gone: dict[str, Outcome] = {}
    control: dict[str, Outcome] = {}
    connections: dict[str, str] = {}
    masqueraded: dict[str, int] = {}
    hosts = stage.lab.hosts
    for name, here in stage.by_host().items():
        host, away = hosts[name], next((item for item in hosts.values() if item.name != name), None)
        if away is None:
            continue
        with probers[away.name].listening([Listener("tcp")]) as listening:
            goal = (away.address, listening.ports[0])
            attempts = [seat.attempt("tcp", *goal, reply=True) for seat in here]
            before = packets(host, "-j MASQUERADE")
            control[host.name], *outcomes = probers[host.name].attempt([outward("tcp", *goal), *attempts])
            masqueraded[host.name] = packets(host, "-j MASQUERADE") - before
            asked = host.run(["conntrack", "-L", "-p", "tcp", "--orig-port-dst", str(goal[1])])
        connections[host.name] = asked.stdout
        receiver[host.name] = away.name
        gone |= {seat.name: outcome for seat, outcome in zip(here, outcomes, strict=True)}
    return Departures(receiver, gone, control, connections, masqueraded)


def _needs_another_host(departures: Departures, seat: Seat) -> None:
    if seat.host not in departures.receiver:
        pytest.skip("the plan has no other host to go to")


def test_egress_is_seen_as_the_host(departures: Departures, egress_seat: Seat, plan: Plan) -> None:
    _needs_another_host(departures, egress_seat)
    name, address = egress_seat.name, plan.host(egress_seat.host).address.ip
    outcome = departures.outcomes[name]
    outcome.assert_connected()
    receiver = departures.receiver[egress_seat.host]
    seen = outcome.reply_text.rpartition(":")[0]
    assert seen == str(address), f"{receiver}: expected: {name} comes from {address}; seen: {outcome.reply_text}"


def test_egress_is_translated_by_the_kernel(
    departures: Departures, egress_seat: Seat, plan: Plan, stage: Stage
) -> None:
    """Conntrack has that very connection, with the answer addressed to the host."""
    _needs_another_host(departures, egress_seat)
    host, outcome = plan.host(egress_seat.host), departures.outcomes[egress_seat.name]
    own_addresses = stage.sources(egress_seat)
    outcome.assert_connected()
    line = next(
        (
            line
            for line in departures.connections[host.name].splitlines()
            if any(f"src={own} " in line for own in own_addresses) and f"sport={outcome.local_port} " in line
        ),
        "",
    )
    answer = f"src={outcome.attempt.address} dst={host.address.ip} sport={outcome.attempt.port} "
    assert answer in line, f"{host.name}: expected in conntrack: {answer}; seen: {line or 'no such connection'}"


def test_masquerade_counters_move(departures: Departures, stage: Stage, busy_host: str) -> None:
    leaving = [seat for seat in stage.seats(busy_host) if seat.service.egress]
    if not leaving or busy_host not in departures.receiver:
        pytest.skip(f"nobody on {busy_host} may go out, or there is no other host to go to")
    seen = departures.masqueraded[busy_host]
    assert seen >= len(leaving), f"{busy_host}: expected: MASQUERADE counted {len(leaving)} or more; seen: {seen}"


def test_no_egress_is_refused(departures: Departures, confined_seat: Seat, stage: Stage) -> None:
    _needs_another_host(departures, confined_seat)
    departures.control[confined_seat.host].assert_connected()
    stage.assert_denied(departures.outcomes[confined_seat.name])


@pytest.fixture(scope="module")
def namesakes(stage: Stage, probers: Probers) -> Mapping[str, list[Outcome]]:
    """Go to another host's port that has the number of a published one, in one run a host and port; by replica."""
    found: dict[str, list[Outcome]] = {}
    plan, hosts = stage.plan, stage.lab.hosts
    for name, here in stage.by_host().items():
        away = next((item for item in hosts.values() if item.name != name), None)
        for port in sorted({entry.port for entry in plan.published if away and entry.host != away.name}):
            assert away is not None
            with probers[away.name].listening([Listener("tcp", port=port)]):
                attempts = [seat.attempt("tcp", away.address, port, reply=True) for seat in here if seat.service.egress]
                attempts.append(replace(outward("tcp", away.address, port), who=name, reply=True))
                for outcome in probers[name].attempt(attempts):
                    found.setdefault(outcome.attempt.who, []).append(outcome)
    return found


def test_another_hosts_port_of_a_published_number_is_reached_there(
    namesakes: Mapping[str, list[Outcome]], egress_seat: Seat, plan: Plan
) -> None:
    if egress_seat.name not in namesakes:
        pytest.skip("every host of the plan publishes that number, or there is one host")
    address = plan.host(egress_seat.host).address.ip
    for outcome in (*namesakes[egress_seat.host], *namesakes[egress_seat.name]):
        outcome.assert_connected()
        seen = outcome.reply_text.rpartition(":")[0]
        assert seen == str(address), f"expected: a listener there answers, and sees {address}; seen: {outcome} {seen!r}"


@dataclass(frozen=True, slots=True)
class Passages:
    """Allowed connections between replicas, by pair, and the kernel's own list of connections on each host."""

    outcomes: Mapping[str, Outcome]
    connections: Mapping[str, str]


@pytest.fixture(scope="module")
def passages(stage: Stage) -> Passages:
    """Make all allowed connections, in one run a host, and look at what the kernel has made of them."""
    seats = {seat.name: seat for seat in stage.seats()}
    allowed = [pair for pair in all_pairs(stage.plan) if pair.allowed]
    outcomes: dict[str, Outcome] = {}
    for host in stage.by_host():
        here = [pair for pair in allowed if seats[pair.source.name].host == host]
        ways = [(seats[pair.source.name], seats[pair.target.name]) for pair in here]
        attempts = [source.attempt("tcp", target.address, target.service.port) for source, target in ways]
        outcomes |= zip((pair.name for pair in here), stage.prober(host).attempt(attempts), strict=True)
    hosts = stage.lab.hosts
    return Passages(outcomes, {name: hosts[name].run(["conntrack", "-L", "-p", "tcp"]).stdout for name in hosts})


def test_between_tiers_nothing_is_rewritten(passages: Passages, allowed_pair: Pair, stage: Stage) -> None:
    """The receiver sees the replica's own address: on every host the answer goes back to where the question is from."""
    pair = allowed_pair
    source, target, outcome = stage.seat(pair.source), stage.seat(pair.target), passages.outcomes[pair.name]
    outcome.assert_connected()
    for host in {source.host, target.host}:
        own = stage.source(source, target)
        words = f"src={own} dst={target.address} sport={outcome.local_port} dport={target.service.port} "
        line = next((line for line in passages.connections[host].splitlines() if words in line), "no such connection")
        back = f"src={target.address} dst={own} sport={target.service.port} dport={outcome.local_port} "
        assert back in line, f"{host}: expected in conntrack: {words}... {back}; seen: {line}"


@dataclass(frozen=True, slots=True)
class Sorties:
    """What came of going out by each protocol, to another host and to the outside: by host, and by confined replica."""

    controls: Mapping[str, Sequence[Outcome]]
    outcomes: Mapping[str, Sequence[Outcome]]


@pytest.fixture(scope="module")
def sorties(stage: Stage, probers: Probers) -> Sorties:
    """Go out from each host, and from its namespaces that may not, in one run a host and goal."""
    controls: dict[str, list[Outcome]] = {}
    found: dict[str, list[Outcome]] = {}
    lab = stage.lab
    for host in lab.hosts.values():
        here = [seat for seat in stage.seats(host.name) if not seat.service.egress]
        goals: list[Machine] = [item for item in lab.hosts.values() if item.name != host.name]
        if not in_own_network(lab.outside):  # which may have a firewall of its own
            goals.append(lab.outside)
        for goal in goals if here else ():
            with probers[goal.name].listening([Listener("tcp"), Listener("udp")]) as listening:
                tcp, udp = listening.ports
                ways = [("tcp", tcp), ("udp", udp), ("icmp", len(found) + 1)]
                attempts = [outward(kind, goal.address, port) for kind, port in ways]
                attempts += [seat.attempt(kind, goal.address, port) for seat in here for kind, port in ways]
                results = iter(probers[host.name].attempt(attempts))
                for name, place in ((host.name, controls), *((seat.name, found) for seat in here)):
                    place.setdefault(name, []).extend(next(results) for _ in ways)
    return Sorties(controls, found)


def test_no_egress_by_any_protocol_to_anywhere(sorties: Sorties, confined_seat: Seat, stage: Stage) -> None:
    for outcome in sorties.controls[confined_seat.host]:
        outcome.assert_connected()
    for outcome in sorties.outcomes[confined_seat.name]:
        stage.assert_denied(outcome)


@pytest.fixture(scope="module")
def arrivals(stage: Stage, probers: Probers) -> Mapping[str, Outcome]:
    """Use the published ports from everywhere."""
    return arrive(stage, probers)


def test_published_port_answers(arrivals: Mapping[str, Outcome], visit: Visit, stage: Stage) -> None:
    """From everywhere, and the edge is told who asks, as the phase promises it."""
    outcome = arrivals[visit.name]
    outcome.assert_connected()
    assert outcome.status == 200, f"expected: 200; seen: {outcome} {outcome.body}"
    if stage.plan.service(visit.entry.service).program is Program.NGINX:
        seen = outcome.headers.get("x-client-address")
        wanted = stage.seen_as(visit)
        assert seen == str(wanted), f"{visit.name}: expected: seen as {wanted}; seen as {seen}"


@pytest.fixture(scope="module")
def uninvited(stage: Stage, probers: Probers) -> Mapping[str, list[Outcome]]:
    """Use the published ports from those who may not go out."""
    return intrude(stage, probers)


def test_published_port_is_refused_without_egress(
    uninvited: Mapping[str, list[Outcome]], arrivals: Mapping[str, Outcome], confined_seat: Seat, stage: Stage
) -> None:
    if not stage.plan.published:
        pytest.skip("the plan publishes nothing")
    for name, outcome in arrivals.items():
        if name.startswith(f"{OUTSIDE}->"):
            outcome.assert_connected()
    for outcome in uninvited[confined_seat.name]:
        stage.assert_denied(outcome)
