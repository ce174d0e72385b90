"""Who is not of the tunnel puts nothing into it, and who is in it reaches nothing of the hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address

import pytest

from acceptance.kernel import in_own_network
from acceptance.modules import LabHost
from acceptance.phase3.counted import count
from acceptance.phase3.frames import wrap
from acceptance.phase3.stage import ByTunnel
from acceptance.provisioning import PROGRAM, phases_on
from acceptance.suite.stage import Seat
from acceptance.traffic import Listener, Prober, outward
from underlay.hosts.base import Machine
from underlay.wait import NotYet, until

#: Sends a UDP packet many times: what, to whom, to which port, how often.
_SEND = """
import socket, sys
link, data = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), bytes.fromhex(sys.argv[1])
link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for _ in range(int(sys.argv[4])):
    link.sendto(data, (sys.argv[2], int(sys.argv[3])))
"""
#: More than come by themselves meanwhile.
_MANY = 100
#: A MAC address of nobody, locally administered.
_NOBODY = "02:00:00:00:00:99"


def _forged(tunnel: ByTunnel, called: Seat, vni: int, address: IPv4Address | None = None) -> list[str]:
    """Return the program that sends what a tunnel unwraps into frames that a replica's own link would take.

    To its host's address on the underlay, or to another one that this hears on.
    """
    data = wrap(vni, tunnel.mac(called), _NOBODY, b"forged").hex()
    target = [str(address or tunnel.stretched.endpoint(called.host)), str(tunnel.plan.tunnel.port), str(_MANY)]
    return ["python3", "-c", _SEND, data, *target]


def _forge(tunnel: ByTunnel, sender: Machine, called: Seat, vni: int) -> None:
    """Have somebody put frames into the tunnel."""
    sender.run(_forged(tunnel, called, vni))


def _received(tunnel: ByTunnel, seat: Seat) -> int:
    """Return how many frames a replica's link has taken."""
    name = tunnel.inner(seat).name
    return int(tunnel.inside(seat).file(f"/sys/class/net/{name}/statistics/rx_packets").content_string)


@pytest.fixture
def stranger(tunnel: ByTunnel) -> Machine:
    """Return somebody on the underlay who is not of the tunnel."""
    outside = tunnel.lab.outside
    if in_own_network(outside):
        others = [host for name, host in tunnel.lab.hosts.items() if name not in tunnel.stretched.bridges]
        if not others:
            pytest.skip("outside is this machine's own network, and all hosts are of the tunnel")
        return others[0]
    return outside


def test_another_end_puts_frames_into_the_tunnel(tunnel: ByTunnel, called: Seat) -> None:
    """The control for what follows: frames of this very kind arrive from who may send them."""
    before = _received(tunnel, called)
    _forge(tunnel, tunnel.other(called.host).machine, called, tunnel.plan.tunnel.vni)

    def arrived() -> bool | NotYet:
        seen = _received(tunnel, called) - before
        return seen >= _MANY or NotYet(f"{seen} frames")

    until(arrived, deadline_s=tunnel.plan.timeouts.connect, what=f"{_MANY} frames", where=called.name)


def test_frames_of_another_network_do_not_come_out(tunnel: ByTunnel, called: Seat) -> None:
    """They are let in, since they come from the other end; and nobody takes them."""
    end = tunnel.ends()[called.host]
    before, let_in = _received(tunnel, called), count(end).let_in
    _forge(tunnel, tunnel.other(called.host).machine, called, tunnel.plan.tunnel.vni + 1)

    def arrived() -> bool | NotYet:
        seen = count(end).let_in - let_in
        return seen >= _MANY or NotYet(f"{seen} packets")

    until(arrived, deadline_s=tunnel.plan.timeouts.connect, what=f"{_MANY} packets let in", where=called.host)
    seen = _received(tunnel, called) - before
    assert seen < _MANY, f"{called.name}: expected: nothing of another VNI; seen: {seen} frames"


@pytest.mark.parametrize("target", ["its address", "everybody's address"])
def test_a_stranger_puts_nothing_into_the_tunnel(
    tunnel: ByTunnel, called: Seat, stranger: Machine, target: str
) -> None:
    """A VXLAN hears on all addresses of its host, broadcasts as well, whatever its own one is."""
    deny, subnet = tunnel.ends()[called.host].rules(tunnel.deny_chain), tunnel.plan.underlay.subnet
    before, denied = _received(tunnel, called), deny.packets
    address = None if target == "its address" else subnet.broadcast_address
    stranger.run(_forged(tunnel, called, tunnel.plan.tunnel.vni, address))

    def counted() -> bool | NotYet:
        seen = deny.packets - denied
        return seen >= _MANY or NotYet(f"{seen} packets")

    what = f"{_MANY} packets in {tunnel.deny_chain}"
    until(counted, deadline_s=tunnel.plan.timeouts.connect, what=what, where=called.host)
    seen = _received(tunnel, called) - before
    assert seen < _MANY, f"{called.name}: expected: nothing from {stranger.name}; seen: {seen} frames"


def test_who_goes_out_by_way_of_an_end_puts_nothing_into_the_tunnel(tunnel: ByTunnel, called: Seat) -> None:
    """His packets have the address of that end, which the other one believes: those of phase 1 who may go out."""
    end, plan = tunnel.other(called.host), tunnel.lab.plan
    if "phase1" not in phases_on(end.machine, PROGRAM):
        pytest.skip(f"phase 1 is not on {end.name}")
    leaving = [item for service in plan.services_on(end.name) if service.egress for item in service.replicas]
    if not leaving:
        pytest.skip(f"by the plan nobody on {end.name} may go out")
    deny = end.rules(tunnel.deny_chain)
    for item in leaving:
        before, denied = _received(tunnel, called), deny.packets
        words = _forged(tunnel, called, tunnel.plan.tunnel.vni)
        end.machine.run(["ip", "netns", "exec", item.namespace, *words])
        counted = deny.packets - denied
        assert counted >= _MANY, f"{end.name}: expected: {_MANY} packets are denied; seen: {counted}"
        seen = _received(tunnel, called) - before
        assert seen < _MANY, f"{called.name}: expected: nothing from {item.name} of phase 1; seen: {seen} frames"


@contextmanager
def _ways_out(tunnel: ByTunnel, seats: Sequence[Seat], router: str) -> Iterator[None]:
    """Give replicas a default route by a host's bridge: that they have none is not what keeps them in."""
    via = str(tunnel.stretched.bridges[router].ip)
    with ExitStack() as stack:
        for seat in seats:
            place = tunnel.inside(seat)
            place.run_expect([0], "ip route add default via %s", via)
            stack.callback(place.run_expect, [0], "ip route delete default via %s", via)
        yield


@pytest.mark.parametrize("router", ["their own host", "the host at the other end"])
def test_nothing_of_a_host_is_reachable(tunnel: ByTunnel, ends: Mapping[str, LabHost], router: str) -> None:
    """At whichever of its addresses, where something listens; and nothing beyond it, of another phase or of nobody."""
    listening, plan = [Listener("tcp"), Listener("udp")], tunnel.lab.plan
    for name in ends:
        seats = tunnel.seats(name)
        goal = name if router == "their own host" else tunnel.other(name).name
        with tunnel.prober(goal).listening(listening) as found, _ways_out(tunnel, seats, goal):
            tcp, udp = found.ports
            addresses = [plan.host(goal).address.ip, tunnel.stretched.bridges[goal].ip]
            for outcome in tunnel.prober(goal).attempt([outward("tcp", address, tcp) for address in addresses]):
                outcome.assert_connected()
            goals = [(kind, address, port) for address in addresses for kind, port in (("tcp", tcp), ("udp", udp))]
            goals += [("icmp", address, 1) for address in addresses]
            if goal != name:
                goals += [("tcp", item.ip, service.port) for service, item in plan.replicas()]
                goals += [(kind, plan.underlay.gateway.ip, tcp) for kind in ("tcp", "udp", "icmp")]
            tries = [seat.attempt(*goal) for seat in seats for goal in goals]
            for outcome in tunnel.prober(name).attempt(tries):
                tunnel.assert_denied(outcome)


def test_the_tunnel_is_not_reachable_from_elsewhere(tunnel: ByTunnel, seat: Seat, served: None) -> None:
    """Not even with a route: nothing is published here. A host that is a router refuses, another passes nothing on."""
    outside = tunnel.lab.outside
    if in_own_network(outside):
        pytest.skip("outside is this machine's own network, whose routes are not touched")
    home = tunnel.ends()[seat.host]
    attempt = outward("tcp", seat.address, seat.service.port)
    tunnel.prober(seat.host).one(attempt).assert_connected()
    words = [str(tunnel.plan.tunnel.subnet), "via", str(home.machine.address)]
    deny, routes = home.rules(tunnel.deny_chain), home.sysctl("net.ipv4.ip_forward")
    outside.run(["ip", "route", "add", *words])
    try:
        before = deny.packets
        outcome = Prober(outside, tunnel.plan, outside=True).one(attempt)
        denied = deny.packets - before
    finally:
        outside.run(["ip", "route", "delete", *words])
    expected = ("refused", True) if routes else ("timeout", False)
    seen = (outcome.outcome, denied > 0)
    assert seen == expected, f"{seat.host}: expected: {expected} and whether it is counted; seen: {denied}: {outcome}"
