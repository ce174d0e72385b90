"""From a service's namespace nothing of the host is reachable but DNS; from outside no tier is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import pytest

from acceptance.kernel import in_own_network, packets
from acceptance.phase1.cases import OUTSIDE, Seat, seats
from acceptance.traffic import (
    DENY_CHAIN,
    DNS_PORT,
    NO_ERROR,
    Attempt,
    Listener,
    Outcome,
    Prober,
    dns_answer,
    dns_question,
)
from underlay.hosts.base import Lab, Machine
from underlay.topology import Plan, Tier

Probers = Mapping[str, Prober]


#: What came of attempts on the hosts' own addresses: by what was tried, from which namespace (None: the host itself),
#: and on which address.
HostPorts = Mapping[tuple[str, str | None, str], Outcome]
_PING, _PING_BACK = "ping", "ping back"


@pytest.fixture(scope="module")
def host_ports(plan: Plan, probers: Probers) -> HostPorts:
    """Try each host's addresses from each of its namespaces, in one run a host, while something listens on all."""
    found: dict[tuple[str, str | None, str], Outcome] = {}
    name = next(f"{service.name}.{plan.domain}" for service in plan.services)
    question = dns_question(name)
    framed = f"{len(question) // 2:04x}{question}"  # RFC 1035, section 4.2.2
    for host in plan.hosts:
        here = [seat for seat in seats(plan) if seat.service.host == host.name]
        if not here:
            continue
        prober = probers[host.name]
        with prober.listening([Listener("tcp")]) as listening:
            attempts = {
                ("tcp", space, address): Attempt("tcp", address, listening.ports[0], space, reply=True)
                for address in _addresses(plan, host.name)
                for space in (None, *(seat.replica.namespace for seat in here))
            }
            for seat in here:
                space, gateway, own = seat.replica.namespace, str(seat.tier.gateway.ip), str(seat.replica.ip)
                attempts["dns udp", space, gateway] = Attempt("udp", gateway, DNS_PORT, space, payload=question)
                attempts["dns tcp", space, gateway] = Attempt("tcp", gateway, DNS_PORT, space, framed, reply=True)
                attempts[_PING, space, gateway] = Attempt("icmp", gateway, 1, space)
                attempts[_PING_BACK, None, own] = Attempt("icmp", own, 2)
            found |= zip(attempts, prober.attempt(list(attempts.values())), strict=True)
    return found


def _addresses(plan: Plan, host: str) -> list[str]:
    return [str(plan.host(host).address.ip), *(str(tier.gateway.ip) for tier in plan.tiers_on(host))]


def test_no_port_of_the_host_is_reachable(host_ports: HostPorts, seat: Seat, plan: Plan) -> None:
    for address in _addresses(plan, seat.service.host):
        host_ports["tcp", None, address].assert_connected()
        host_ports["tcp", seat.replica.namespace, address].assert_refused(plan.timeouts.connect)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_dns_of_the_host_is_reachable(host_ports: HostPorts, seat: Seat, protocol: str) -> None:
    outcome = host_ports[f"dns {protocol}", seat.replica.namespace, str(seat.tier.gateway.ip)]
    outcome.assert_connected()
    code, records = dns_answer(outcome.reply[4:] if protocol == "tcp" else outcome.reply)
    assert (code, records > 0) == (NO_ERROR, True), f"expected: an address; seen: code {code}, {records} in {outcome}"


def test_ping_of_the_gateway_is_denied(host_ports: HostPorts, seat: Seat) -> None:
    host_ports[_PING_BACK, None, str(seat.replica.ip)].assert_connected()  # ping itself works: the host may
    host_ports[_PING, seat.replica.namespace, str(seat.tier.gateway.ip)].assert_dropped()


@pytest.mark.parametrize("place", ["another host", OUTSIDE])
def test_tier_is_not_reachable_from_elsewhere(lab: Lab, plan: Plan, probers: Probers, tier: Tier, place: str) -> None:
    """Not even with a route: services are reached by published ports alone."""
    home = lab.hosts[str(tier.host)]
    intruder = _intruder(lab, home.name, place)
    targets = [seat for seat in seats(plan) if seat.tier == tier]
    attempts = [Attempt("tcp", str(seat.replica.ip), seat.service.port) for seat in targets]
    for outcome in probers[home.name].attempt(attempts):
        outcome.assert_connected()
    with ExitStack() as stack:
        stack.enter_context(_route(intruder, tier, home))
        before = packets(home, "-A PHASE1-DENY ")
        outcomes = probers[intruder.name].attempt(attempts)
        denied = packets(home, "-A PHASE1-DENY ") - before
    for outcome in outcomes:
        assert outcome.outcome == "refused", f"expected: refused at once by {home.name}; seen: {outcome}"
    assert denied >= len(outcomes), (
        f"{home.name}: expected: the deny counter rises by {len(outcomes)} or more; seen: {denied}"
    )


def _intruder(lab: Lab, home: str, place: str) -> Machine:
    if place == OUTSIDE:
        if in_own_network(lab.outside):
            pytest.skip("outside is this machine's own network, whose routes are not touched")
        return lab.outside
    others = [host for host in lab.hosts.values() if host.name != home and not lab.plan.services_on(host.name)]
    if not others:
        pytest.skip("no other host without services: those route to the tiers anyway")
    return others[0]


@contextmanager
def _route(machine: Machine, tier: Tier, home: Machine) -> Iterator[None]:
    words = [str(tier.subnet), "via", str(home.address)]
    machine.run(["ip", "route", "add", *words])
    try:
        yield
    finally:
        machine.run(["ip", "route", "delete", *words])


def test_looks_at_the_deny_counter_see_what_iptables_sees(
    lab: Lab, plan: Plan, probers: Probers, busy_host: str
) -> None:
    host, prober = lab.hosts[busy_host], probers[busy_host]
    seat = next(seat for seat in seats(plan) if seat.service.host == busy_host)
    goals = [Attempt("icmp", str(seat.tier.gateway.ip), number, seat.replica.namespace) for number in range(1, 4)]
    before = packets(host, f"-A {DENY_CHAIN} ")
    looks = prober.attempt(goals)
    rise = packets(host, f"-A {DENY_CHAIN} ") - before
    seen = [outcome.denied for outcome in looks]
    assert all(seen), f"{busy_host}: expected: each attempt is counted; seen: {seen}: {looks[0]}"
    assert sum(seen) <= rise, f"{busy_host}: expected: no more than {rise}, as iptables says; seen: {seen}"
