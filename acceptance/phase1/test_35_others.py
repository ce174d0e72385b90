"""What the host's other networks do is not decided by our chains: a stranger's packets meet the stranger's rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import pytest

from acceptance.kernel import packets
from acceptance.suite.flows import all_pairs
from acceptance.suite.stage import Stage
from acceptance.traffic import Attempt, Listener, Outcome, Prober
from underlay.hosts.base import Host, Lab, Machine
from underlay.topology import Plan

#: A network of nobody's plan (RFC 2544), as Docker or a person might have one.
_BRIDGE, _SPACE, _SUBNET = "br-stranger", "stranger", "198.18.5.0/24"
_GATEWAY, _ADDRESS = "198.18.5.1/24", "198.18.5.2/24"
#: A port that nobody publishes.
_PORT = 7777
#: Packets of one answered connection in each direction: its opening, its answer, its end.
_PACKETS = 3


@contextmanager
def _done(machine: Machine, do: str, undo: str) -> Iterator[None]:
    machine.run(["sh", "-c", do])
    try:
        yield
    finally:
        machine.run(["sh", "-c", undo])


@contextmanager
def _stranger(host: Machine, neighbour: Machine) -> Iterator[None]:
    """Make that network, with rules of its own at the end of the kernel's chains, and a way back from ``neighbour``."""
    rules = [f"FORWARD -i {_BRIDGE}", f"FORWARD -o {_BRIDGE}", f"INPUT -i {_BRIDGE}"]
    make = [
        f"ip netns add {_SPACE}",
        f"ip link add {_BRIDGE} up type bridge",
        f"ip address add {_GATEWAY} dev {_BRIDGE}",
        f"ip link add {_SPACE} master {_BRIDGE} up type veth peer name eth0 netns {_SPACE}",
        f"ip -n {_SPACE} link set eth0 up",
        f"ip -n {_SPACE} address add {_ADDRESS} dev eth0",
        f"ip -n {_SPACE} route add default via {_GATEWAY.partition('/')[0]}",
        *(f"iptables -w -A {rule} -j ACCEPT" for rule in rules),
    ]
    clear = [
        *(f"iptables -w -D {rule} -j ACCEPT" for rule in rules),
        # Before its namespace, whose end the kernel brings about later: meanwhile nobody could take its name again.
        f"ip link delete {_SPACE}",
        f"ip netns delete {_SPACE}",
        f"ip link delete {_BRIDGE}",
    ]
    with ExitStack() as stack:
        stack.callback(host.run, ["sh", "-c", "\n".join(clear)], check=False)
        host.run(["sh", "-e", "-c", "\n".join(make)])
        stack.callback(neighbour.run, ["ip", "route", "delete", _SUBNET], check=False)
        neighbour.run(["ip", "route", "add", _SUBNET, "via", str(host.address)])
        yield


@pytest.fixture
def two_hosts(lab: Lab, plan: Plan) -> tuple[Host, Host]:
    """Return a host with services, and another one."""
    busy = next(lab.hosts[item.name] for item in plan.hosts if plan.services_on(item.name))
    return busy, next(item for item in lab.hosts.values() if item.name != busy.name)


def test_strangers_packets_meet_the_strangers_rules(
    two_hosts: tuple[Host, Host], probers: Mapping[str, Prober]
) -> None:
    host, neighbour = two_hosts
    with ExitStack() as stack:
        stack.enter_context(_stranger(host, neighbour))
        away = stack.enter_context(probers[neighbour.name].listening([Listener("tcp")]))
        here = stack.enter_context(probers[host.name].listening([Listener("tcp")]))
        outcomes = probers[host.name].attempt(
            [
                Attempt("tcp", str(neighbour.address), away.ports[0], _SPACE, reply=True),
                Attempt("tcp", str(host.address), here.ports[0], _SPACE, reply=True),
            ]
        )
        for outcome in outcomes:
            outcome.assert_connected()
            peer = outcome.reply_text.rpartition(":")[0]
            assert peer == _ADDRESS.partition("/")[0], (
                f"{outcome.attempt.address}: expected: the stranger as {_ADDRESS} itself; seen: {peer}"
            )
        for rule in (f"-A FORWARD -i {_BRIDGE}", f"-A FORWARD -o {_BRIDGE}", f"-A INPUT -i {_BRIDGE}"):
            seen = packets(host, f"{rule} ")
            assert seen >= _PACKETS, (
                f"{host.name}: expected: `{rule}` decides each of {_PACKETS} packets or more, not the first alone; "
                f"seen: {seen}: a chain of ours has accepted the others"
            )


def _assert_denied(outcome: Outcome) -> None:
    """Fail unless the deny rule met it; whom its answer reaches is not asked where addresses are not what they seem."""
    assert not outcome.connected, f"expected: refused by the deny rule; seen: {outcome}"
    assert outcome.denied >= 1, f"expected: refused by the deny rule, whose counter rises; seen: {outcome}"


def test_strangers_own_translation_leads_to_no_service(
    two_hosts: tuple[Host, Host], probers: Mapping[str, Prober], plan: Plan
) -> None:
    """What is published is one port: another one that somebody else translates is not."""
    host, neighbour = two_hosts
    entry = next((item for item in plan.published if item.host == host.name), None)
    if entry is None:
        pytest.skip(f"{host.name} publishes nothing")
    service = plan.service(entry.service)
    rule = (
        f"PREROUTING -i {_BRIDGE} -p tcp --dport {_PORT} "
        f"-j DNAT --to-destination {service.replicas[0].ip}:{service.port}"
    )
    with _stranger(host, neighbour), _done(host, f"iptables -w -t nat -A {rule}", f"iptables -w -t nat -D {rule}"):
        published, translated = probers[host.name].attempt(
            [Attempt("tcp", str(host.address), port, _SPACE) for port in (entry.port, _PORT)]
        )
        published.assert_connected()
        _assert_denied(translated)


def test_stranger_with_the_address_of_a_service_is_denied(
    two_hosts: tuple[Host, Host], stage: Stage, probers: Mapping[str, Prober]
) -> None:
    """A flow begins in its service's own tier: whoever else sends with that address is not let in."""
    host, neighbour = two_hosts
    pairs = [pair for pair in all_pairs(stage.plan) if pair.allowed]
    ways = [(stage.seat(pair.source), stage.seat(pair.target)) for pair in pairs]
    source, target = next((way for way in ways if {seat.host for seat in way} == {host.name}), (None, None))
    if source is None or target is None:
        pytest.skip(f"by the plan, nobody on {host.name} may connect to anybody there")
    gateway = _GATEWAY.partition("/")[0]
    claim = (
        f"ip -n {_SPACE} address add {source.address}/32 dev eth0 && "
        f"ip -n {_SPACE} route add {target.address}/32 via {gateway} src {source.address}"
    )
    port = target.service.port
    with _stranger(host, neighbour), _done(host, claim, "true"):
        own, false = probers[host.name].attempt(
            [source.attempt("tcp", target.address, port), Attempt("tcp", str(target.address), port, _SPACE)]
        )
        own.assert_connected()
        _assert_denied(false)
