"""From a service's namespace nothing of the host is reachable but DNS; from outside no tier is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address

import pytest

from acceptance.kernel import in_own_network
from acceptance.modules import LabHost
from acceptance.suite.cases import OUTSIDE
from acceptance.suite.stage import Seat, Stage
from acceptance.traffic import (
    DNS_PORT,
    NO_ERROR,
    Attempt,
    Listener,
    Outcome,
    Prober,
    dns_answer,
    dns_question,
    outward,
)
from underlay.hosts.base import Lab, Machine
from underlay.topology import Plan, Tier

Probers = Mapping[str, Prober]


#: What came of attempts on the hosts' own addresses: by what was tried, from which namespace (None: the host itself),
#: and on which address.
HostPorts = Mapping[tuple[str, str | None, IPv4Address], Outcome]
_PING, _PING_BACK = "ping", "ping back"


@pytest.fixture(scope="module")
def host_ports(stage: Stage, probers: Probers) -> HostPorts:
    """Try each host's addresses from each of its namespaces, in one run a host, while something listens on all."""
    found: dict[tuple[str, str | None, IPv4Address], Outcome] = {}
    plan = stage.plan
    name = next(f"{service.name}.{plan.domain}" for service in plan.services)
    question = dns_question(name)
    framed = f"{len(question) // 2:04x}{question}"  # RFC 1035, section 4.2.2
    for host, here in stage.by_host().items():
        prober = probers[host]
        with prober.listening([Listener("tcp")]) as listening:
            attempts: dict[tuple[str, str | None, IPv4Address], Attempt] = {}
            for address in _addresses(plan, host):
                attempts["tcp", None, address] = outward("tcp", address, listening.ports[0])
                for seat in here:
                    attempts["tcp", seat.name, address] = seat.attempt("tcp", address, listening.ports[0], reply=True)
            for seat in here:
                gateway, own = seat.tier.gateway.ip, seat.address
                attempts["dns udp", seat.name, gateway] = seat.attempt("udp", gateway, DNS_PORT, question)
                attempts["dns tcp", seat.name, gateway] = seat.attempt("tcp", gateway, DNS_PORT, framed, reply=True)
                for other in set(_addresses(plan, host)) - {gateway}:
                    attempts["dns udp", seat.name, other] = seat.attempt("udp", other, DNS_PORT, question)
                    attempts["dns tcp", seat.name, other] = seat.attempt("tcp", other, DNS_PORT, framed, reply=True)
                attempts[_PING, seat.name, gateway] = seat.attempt("icmp", gateway, 1)
                attempts[_PING_BACK, None, own] = outward("icmp", own, 2)
            found |= zip(attempts, prober.attempt(list(attempts.values())), strict=True)
    return found


def _addresses(plan: Plan, host: str) -> list[IPv4Address]:
    return [plan.host(host).address.ip, *(tier.gateway.ip for tier in plan.tiers_on(host))]


def test_no_port_of_the_host_is_reachable(host_ports: HostPorts, seat: Seat, stage: Stage) -> None:
    for address in _addresses(stage.plan, seat.host):
        host_ports["tcp", None, address].assert_connected()
        stage.assert_denied(host_ports["tcp", seat.name, address])


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_dns_of_the_host_is_reachable(host_ports: HostPorts, seat: Seat, protocol: str) -> None:
    outcome = host_ports[f"dns {protocol}", seat.name, seat.tier.gateway.ip]
    outcome.assert_connected()
    code, records = dns_answer(outcome.reply[4:] if protocol == "tcp" else outcome.reply)
    assert (code, records > 0) == (NO_ERROR, True), f"expected: an address; seen: code {code}, {records} in {outcome}"


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_dns_is_reachable_at_the_own_gateway_alone(
    host_ports: HostPorts, seat: Seat, protocol: str, stage: Stage
) -> None:
    """The one server answers at the gateway of each tier; those of other tiers are not this tier's."""
    for address in set(_addresses(stage.plan, seat.host)) - {seat.tier.gateway.ip}:
        stage.assert_denied(host_ports[f"dns {protocol}", seat.name, address])


def test_ping_of_the_gateway_is_denied(host_ports: HostPorts, seat: Seat, stage: Stage) -> None:
    host_ports[_PING_BACK, None, seat.address].assert_connected()  # ping itself works: the host may
    stage.assert_denied(host_ports[_PING, seat.name, seat.tier.gateway.ip])


@pytest.mark.parametrize("place", ["another host", OUTSIDE])
def test_tier_is_not_reachable_from_elsewhere(stage: Stage, probers: Probers, tier: Tier, place: str) -> None:
    """Not even with a route: services are reached by published ports alone."""
    home = stage.lab.hosts[str(tier.host)]
    deny = LabHost(home, stage.plan).rules(stage.deny_chain)
    intruder = _intruder(stage.lab, home.name, place)
    attempts = [outward("tcp", seat.address, seat.service.port) for seat in stage.seats() if seat.tier == tier]
    for outcome in probers[home.name].attempt(attempts):
        outcome.assert_connected()
    with ExitStack() as stack:
        stack.enter_context(_route(intruder, tier, home))
        before = deny.packets
        outcomes = probers[intruder.name].attempt(attempts)
        denied = deny.packets - before
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


def test_looks_at_the_deny_counter_see_what_iptables_sees(stage: Stage, probers: Probers, busy_host: str) -> None:
    deny = LabHost(stage.lab.hosts[busy_host], stage.plan).rules(stage.deny_chain)
    seat = stage.seats(busy_host)[0]
    goals = [seat.attempt("icmp", seat.tier.gateway.ip, number) for number in range(1, 4)]
    before = deny.packets
    looks = probers[busy_host].attempt(goals)
    rise = deny.packets - before
    seen = [outcome.denied for outcome in looks]
    assert all(seen), f"{busy_host}: expected: each attempt is counted; seen: {seen}: {looks[0]}"
    assert sum(seen) <= rise, f"{busy_host}: expected: no more than {rise}, as iptables says; seen: {seen}"
