"""The hosts themselves: what is not published is closed, to everybody; and no host is a router for strangers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest

from acceptance.conftest import Snapshots
from acceptance.kernel import in_own_network
from acceptance.modules import LabHost
from acceptance.suite import chance
from acceptance.suite.stage import Stage
from acceptance.traffic import Attempt, Listener, Outcome, Prober, outward
from underlay.hosts import layout
from underlay.hosts.base import Host, Lab, Machine
from underlay.hosts.find import NAMESPACE
from underlay.topology import across

Probers = Mapping[str, Prober]
#: Ports of chance, that nobody has asked for.
_CHANCE = 4


def _unplanned(stage: Stage, host: str, its_own: Sequence[int], seed: int) -> list[int]:
    """Return ports that a host must not answer on: those of the plan that it does not publish, and some of chance.

    ``its_own`` are those on which it serves by itself, as a host does (ssh).
    """
    plan = stage.plan
    every = {service.port for service in plan.services} | {entry.port for entry in plan.published}
    some = {*chance.drawn_by(seed).sample(range(1, 65536), _CHANCE)} - set(its_own)
    return sorted({*every, plan.tunnel.port, *some} - stage.serves(host))


@dataclass(frozen=True, slots=True)
class Knocks:
    """What came of it, by host and by who knocks; and what the ports of chance were chosen by."""

    seed: int
    outcomes: Mapping[tuple[str, str], Sequence[Outcome]]


@pytest.fixture(scope="module")
def knocked(stage: Stage, probers: Probers) -> Knocks:
    """Knock at each host from each machine and from each replica elsewhere."""
    seed = chance.seed(chance.PORTS)
    found: dict[tuple[str, str], Sequence[Outcome]] = {}
    lab, plan = stage.lab, stage.plan
    seats = [seat for seat in stage.seats() if seat.service.egress]
    for host in lab.hosts.values():
        ports = _unplanned(stage, host.name, _own_ports(LabHost(host, plan)), seed)
        # One by UDP: the kernel tells one asker of few closed ports at a time (icmp_ratelimit, icmp(7)).
        ways = [("tcp", port) for port in ports] + [("udp", entry.port) for entry in plan.published[:1]]
        for name, prober in probers.items():
            if name == host.name or (name == lab.outside.name and in_own_network(lab.outside)):
                continue
            attempts = [outward(kind, host.address, port) for kind, port in ways]
            here = [seat for seat in seats if seat.host == name]
            attempts += [seat.attempt(kind, host.address, port) for seat in here for kind, port in ways]
            outcomes = iter(prober.attempt(attempts))
            for who in (name, *(seat.name for seat in here)):
                found[host.name, who] = [next(outcomes) for _ in ways]
    return Knocks(seed, found)


def _own_ports(host: LabHost) -> list[int]:
    """Return the TCP ports on which somebody listens in the host's own network."""
    sockets = host.socket.get_listening_sockets()
    return [int(item.rpartition(":")[2]) for item in sockets if item.startswith("tcp:")]


def test_no_host_answers_on_a_port_that_it_does_not_publish(knocked: Knocks, host_name: str) -> None:
    print(f"to repeat: {chance.PORTS}={knocked.seed}")
    here = {who: outcomes for (host, who), outcomes in knocked.outcomes.items() if host == host_name}
    if not here:
        pytest.skip("there is nobody else to knock")
    for outcomes in here.values():
        for outcome in outcomes:
            assert outcome.outcome == "refused", f"{host_name}: expected: nobody is there (refused); seen: {outcome}"


def test_host_without_services_has_nothing_of_the_phase(stage: Stage, snapshots: Snapshots, idle_host: str) -> None:
    host_name, state, plan = idle_host, snapshots[idle_host], stage.plan
    marks = (f"{stage.phase.upper()}-", f"underlay {stage.phase}")
    rules = [line for line in state.rules if any(mark in line for mark in marks)]
    assert not rules, f"{host_name}: expected: no rules of ours; seen: {rules}"
    tiers = [route for route in state.root.routes for tier in plan.tiers
             if route.destination.prefixlen and route.destination.overlaps(tier.subnet)]  # fmt: skip
    assert not tiers, f"{host_name}: expected: no way to any tier; seen: {tiers}"
    if stage.lab.plan.services_on(host_name):
        return  # another phase is there
    namespaces = set(state.namespaces) - across(stage.lab.plan).namespaces(host_name)
    assert not namespaces, f"{host_name}: expected: no namespaces; seen: {sorted(namespaces)}"
    if not any(line.startswith(":DOCKER") for line in state.rules):  # which forwards too, once it has run
        forwards = state.root.parameters["net.ipv4.ip_forward"]
        assert forwards == "0", f"{host_name}: expected: it forwards nothing (ip_forward 0); seen: {forwards}"


def test_host_cannot_write_to_the_repository(lab: Lab, host_name: str) -> None:
    if lab.kind != NAMESPACE:
        pytest.skip("a virtual machine has a copy of its own")
    done = lab.hosts[host_name].run(["touch", f"{layout.REPOSITORY}/written-by-a-host"], check=False)
    seen = done.stdout + done.stderr
    assert "Read-only file system" in seen, f"{host_name}: expected: {layout.REPOSITORY} is read-only; seen: {seen}"


@contextmanager
def _by_way_of(machine: Machine, target: IPv4Address, router: Host) -> Iterator[None]:
    words = [f"{target}/32", "via", str(router.address)]
    machine.run(["ip", "route", "add", *words])
    try:
        yield
    finally:
        machine.run(["ip", "route", "delete", *words])


def _strangers(lab: Lab, router: str) -> Iterator[tuple[Machine, Machine]]:
    """Yield who tries to go through a router, and where to: from outside to another host, and from there out."""
    for host in lab.hosts.values():
        if host.name != router and not in_own_network(lab.outside):
            yield lab.outside, host
            yield host, lab.outside


def test_host_is_no_router_for_strangers(stage: Stage, probers: Probers, busy_host: str) -> None:
    """Not from outside to another host, nor from there out: dropped, and counted by the policy."""
    lab = stage.lab
    router, policy = lab.hosts[busy_host], LabHost(lab.hosts[busy_host], stage.plan).rules("FORWARD")
    ways = list(_strangers(lab, busy_host))
    if not ways:
        pytest.skip("there is no other host, or outside is this machine's own network, whose routes are not touched")
    with ExitStack() as stack:
        tries: list[tuple[Prober, Attempt]] = []
        for stranger, target in ways:
            listening = stack.enter_context(probers[target.name].listening([Listener("tcp"), Listener("udp")]))
            ends = zip(("tcp", "udp"), listening.ports, strict=True)
            tries += [(probers[stranger.name], outward(kind, target.address, port)) for kind, port in ends]
        for prober, attempt in tries:
            prober.one(attempt).assert_connected()  # without the router in between
        for stranger, target in ways:
            stack.enter_context(_by_way_of(stranger, target.address, router))
        before = policy.passed_over
        with ThreadPoolExecutor(len(tries)) as pool:  # each waits until its time is over
            outcomes = list(pool.map(lambda way: way[0].one(way[1]), tries))
        dropped = policy.passed_over - before
    for outcome in outcomes:
        assert outcome.outcome == "timeout", f"expected: {busy_host} drops what it is sent for others; seen: {outcome}"
    assert policy.policy == "DROP", f"{busy_host}: expected: its policy drops; seen: {policy.policy}"
    assert dropped >= len(tries), f"{busy_host}: expected: the policy counts {len(tries)} or more; seen: {dropped}"
