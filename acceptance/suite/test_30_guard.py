"""From a service nothing of the host is reachable; from outside no tier is; and nobody opens either by a rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address

import pytest

from acceptance.conftest import Snapshots
from acceptance.kernel import Snapshot, in_own_network, packets
from acceptance.modules import LabHost
from acceptance.suite.cases import OUTSIDE
from acceptance.suite.flows import Pair, all_pairs
from acceptance.suite.stage import Seat, Stage
from acceptance.traffic import Attempt, Listener, Outcome, Prober, outward
from underlay.hosts.base import Host, Machine
from underlay.topology import Tier

Probers = Mapping[str, Prober]


#: What came of attempts on the hosts' own addresses: by what was tried, from which namespace (None: the host itself),
#: and on which address.
HostPorts = Mapping[tuple[str, str | None, IPv4Address], Outcome]
_PING, _PING_BACK = "ping", "ping back"


@pytest.fixture(scope="module")
def host_ports(stage: Stage, probers: Probers, snapshots: Snapshots) -> HostPorts:
    """Try each host's addresses, of whatever network they are, from each of its replicas, while something listens."""
    found: dict[tuple[str, str | None, IPv4Address], Outcome] = {}
    for host, here in stage.by_host().items():
        prober = probers[host]
        with prober.listening([Listener("tcp")]) as listening:
            attempts: dict[tuple[str, str | None, IPv4Address], Attempt] = {}
            for address in addresses_of(snapshots[host]):
                attempts["tcp", None, address] = outward("tcp", address, listening.ports[0])
                for seat in here:
                    attempts["tcp", seat.name, address] = seat.attempt("tcp", address, listening.ports[0], reply=True)
            for seat in here:
                gateway, own = seat.tier.gateway.ip, seat.address
                attempts[_PING, seat.name, gateway] = seat.attempt("icmp", gateway, 1)
                attempts[_PING_BACK, None, own] = outward("icmp", own, 2)
            found |= zip(attempts, prober.attempt(list(attempts.values())), strict=True)
    return found


def addresses_of(state: Snapshot) -> list[IPv4Address]:
    """Return a host's own addresses, but for those of its loopback link."""
    links = (link for link in state.root.links.values() if link.name != "lo")
    return [address.ip for link in links for address in link.addresses]


def test_no_port_of_the_host_is_reachable(
    host_ports: HostPorts, seat: Seat, stage: Stage, snapshots: Snapshots
) -> None:
    for address in addresses_of(snapshots[seat.host]):
        host_ports["tcp", None, address].assert_connected()
        stage.assert_denied(host_ports["tcp", seat.name, address])


def test_ping_of_the_gateway_is_denied(host_ports: HostPorts, seat: Seat, stage: Stage) -> None:
    host_ports[_PING_BACK, None, seat.address].assert_connected()  # ping itself works: the host may
    stage.assert_denied(host_ports[_PING, seat.name, seat.tier.gateway.ip])


@pytest.mark.parametrize("place", ["another host", OUTSIDE])
def test_tier_is_not_reachable_from_elsewhere(stage: Stage, probers: Probers, tier: Tier, place: str) -> None:
    """Not even with a route: services are reached by published ports alone."""
    home = stage.lab.hosts[str(tier.host)]
    deny = LabHost(home, stage.plan).rules(stage.deny_chain)
    intruder = _intruder(stage, home.name, place)
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


def _intruder(stage: Stage, home: str, place: str) -> Machine:
    lab = stage.lab
    if place == OUTSIDE:
        if in_own_network(lab.outside):
            pytest.skip("outside is this machine's own network, whose routes are not touched")
        return lab.outside
    others = [host for host in lab.hosts.values() if host.name != home and not stage.plan.services_on(host.name)]
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


#: Rules with which somebody opens everything, as the first ones of the filter table; Docker's are of the kind.
_OPEN = ("FORWARD", "INPUT")
#: Pairs that are tried then: each waits until its time is over.
_TRIED = 6


@contextmanager
def _opened(host: Host) -> Iterator[None]:
    """Have somebody accept everything in the filter table, before any rule of ours."""
    host.run(["sh", "-e", "-c", "\n".join(f"iptables -w -I {chain} -j ACCEPT" for chain in _OPEN)])
    try:
        yield
    finally:
        host.run(["sh", "-c", "\n".join(f"iptables -w -D {chain} -j ACCEPT" for chain in _OPEN)])


def test_nobody_opens_it_by_a_rule_that_comes_first(stage: Stage, probers: Probers, busy_host: str) -> None:
    """What is accepted too much is dropped afterwards, and counted; what is allowed goes on."""
    host, pairs = stage.lab.hosts[busy_host], list(all_pairs(stage.plan))
    seats = {seat.name: seat for seat in stage.seats(busy_host)}
    local = [pair for pair in pairs if {pair.source.name, pair.target.name} <= seats.keys()]
    allowed = [pair for pair in local if pair.allowed]
    denied = [pair for pair in local if not pair.allowed and stage.leads_to(seats[pair.source.name], pair.target.tier)]
    some = denied[:: max(1, len(denied) // _TRIED)][:_TRIED]
    if not some:
        pytest.skip(f"by the plan, everybody on {busy_host} may connect to everybody")

    def attempt(pair: Pair) -> Attempt:
        target = seats[pair.target.name]
        return seats[pair.source.name].attempt("tcp", target.address, target.service.port)

    prober, rule = probers[busy_host], f"{stage.deny_chain} -j DROP"
    with ExitStack() as stack:
        listening = stack.enter_context(prober.listening([Listener("tcp")]))
        stack.enter_context(_opened(host))
        before = packets(host, rule)
        first = seats[some[0].source.name]
        own = first.attempt("tcp", first.tier.gateway.ip, listening.ports[0])
        with ThreadPoolExecutor(len(some) + 1) as pool:  # each waits until its time is over
            outcomes = list(pool.map(prober.one, [*(attempt(pair) for pair in some), own]))
        dropped = packets(host, rule) - before
        passed = prober.attempt([attempt(pair) for pair in allowed])
    for outcome in outcomes:
        assert outcome.outcome == "timeout", f"expected: dropped in the end; seen: {outcome}"
    assert dropped >= len(outcomes), f"{busy_host}: expected: {len(outcomes)} or more are counted; seen: {dropped}"
    for outcome in passed:
        outcome.assert_connected()
