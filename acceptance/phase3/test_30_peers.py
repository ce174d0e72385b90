"""Who is not of the tunnel puts nothing into it, and who is in it reaches nothing of the hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from acceptance.kernel import in_own_network
from acceptance.modules import LabHost
from acceptance.phase3.counted import count
from acceptance.phase3.frames import wrapped
from acceptance.phase3.leaving import leavers
from acceptance.phase3.peers import FEW, MANY, SEND, assert_nothing_comes, forged, received
from acceptance.phase3.stage import ByTunnel
from acceptance.raw import End, datagram, sending
from acceptance.suite.stage import Seat
from acceptance.suite.tagged import TAGS, assert_no_way, neighbours
from acceptance.traffic import Listener, Prober, outward
from underlay.hosts.base import Machine
from underlay.wait import NotYet, until

#: Asks a listener of the suite's: over tcp or udp, at which address and port, for how many seconds.
_ASK = """
import socket, sys
kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[sys.argv[1]]
link = socket.socket(socket.AF_INET, kind)
link.settimeout(float(sys.argv[4]))
link.connect((sys.argv[2], int(sys.argv[3])))
if kind == socket.SOCK_DGRAM:
    link.send(b"?")
sys.exit(not link.recv(64))
"""
#: Has a program run as somebody without any right.
_AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")


@pytest.fixture(scope="module")
def goals(tunnel: ByTunnel) -> Sequence[Seat]:
    """Return a replica at each end."""
    return [tunnel.seats(name)[0] for name in tunnel.ends()]


@pytest.fixture(params=["as it is", "with all accepted before"])
def guarded(tunnel: ByTunnel, request: pytest.FixtureRequest) -> Iterator[None]:
    """Have the guard as it is; and with rules before it that accept everything, so that the security table is asked."""
    with ExitStack() as stack:
        for end in tunnel.ends().values() if request.param != "as it is" else ():
            for chain in ("INPUT", "FORWARD", "OUTPUT"):
                end.run_expect([0], f"iptables -w -I {chain} -j ACCEPT")
                stack.callback(end.run_expect, [0], f"iptables -w -D {chain} -j ACCEPT")
        yield


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


def test_another_end_puts_frames_into_the_tunnel(tunnel: ByTunnel, goals: Sequence[Seat]) -> None:
    """The control for what follows: frames of this very kind arrive from who may send them."""
    for goal in goals:
        before = received(tunnel, goal)
        tunnel.other(goal.host).machine.run(forged(tunnel, goal, tunnel.plan.tunnel.vni))

        def arrived(goal: Seat = goal, before: int = before) -> bool | NotYet:
            seen = received(tunnel, goal) - before
            return seen >= MANY or NotYet(f"{seen} frames")

        until(arrived, deadline_s=tunnel.plan.timeouts.connect, what=f"{MANY} frames", where=goal.name)


def test_frames_of_another_network_do_not_come_out(tunnel: ByTunnel, goals: Sequence[Seat]) -> None:
    """They are let in, since they come from the other end; and nobody takes them."""
    for goal in goals:
        end = tunnel.ends()[goal.host]
        before, let_in = received(tunnel, goal), count(end).let_in
        tunnel.other(goal.host).machine.run(forged(tunnel, goal, tunnel.plan.tunnel.vni + 1))

        def arrived(end: LabHost = end, let_in: int = let_in) -> bool | NotYet:
            seen = count(end).let_in - let_in
            return seen >= MANY or NotYet(f"{seen} packets")

        until(arrived, deadline_s=tunnel.plan.timeouts.connect, what=f"{MANY} packets let in", where=goal.host)
        seen = received(tunnel, goal) - before
        assert seen < FEW, f"{goal.name}: expected: nothing of another VNI; seen: {seen} frames"


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("target", ["its address", "everybody's address"])
def test_a_stranger_puts_nothing_into_the_tunnel(
    tunnel: ByTunnel, goals: Sequence[Seat], stranger: Machine, target: str
) -> None:
    """A VXLAN hears on all addresses of its host, broadcasts as well, whatever its own one is."""
    address = None if target == "its address" else tunnel.plan.underlay.subnet.broadcast_address
    for goal in goals:
        assert_nothing_comes(tunnel, goal, tunnel.ends()[goal.host], stranger, address=address)


@pytest.mark.usefixtures("guarded")
def test_who_is_not_root_at_an_end_puts_nothing_into_the_tunnel(tunnel: ByTunnel, goals: Sequence[Seat]) -> None:
    """His packets come from that end, too."""
    for goal in goals:
        end = tunnel.other(goal.host)
        assert_nothing_comes(tunnel, goal, end, end.machine, _AS_NOBODY)


@pytest.mark.usefixtures("guarded")
def test_who_goes_out_by_way_of_an_end_puts_nothing_into_the_tunnel(tunnel: ByTunnel, goals: Sequence[Seat]) -> None:
    """His packets have the address of that end, which the other one believes."""
    found = [(goal, who) for goal in goals for who in leavers(tunnel.lab.plan, tunnel.other(goal.host).machine)]
    if not found:
        pytest.skip("nobody of another phase may go out by way of an end")
    for goal, who in found:
        end = tunnel.other(goal.host)
        assert_nothing_comes(tunnel, goal, end, end.machine, who.enter)


def test_who_goes_out_reaches_all_else_of_the_other_end(tunnel: ByTunnel, goals: Sequence[Seat]) -> None:
    """The control: it is one port that is closed, not the way."""
    limit = str(tunnel.plan.timeouts.connect)
    for goal in goals:
        end, address = tunnel.other(goal.host), str(tunnel.stretched.endpoint(goal.host))
        with tunnel.prober(goal.host).listening([Listener("tcp"), Listener("udp")]) as found:
            for who in leavers(tunnel.lab.plan, end.machine):
                for kind, port in zip(("tcp", "udp"), found.ports, strict=True):
                    words = ["python3", "-c", _ASK, kind, address, str(port), limit]
                    done = end.machine.run([*who.enter, *words], check=False)
                    assert done.ok, f"{who.name} to {goal.host} by {kind}: expected: an answer; seen: {done.stderr}"


def test_what_comes_out_is_asked_by_the_guard_again(tunnel: ByTunnel, caller: Seat, called: Seat) -> None:
    """A packet that is denied, put into the tunnel behind the guard of the other end: whatever tags it has."""
    _assert_denied_again(tunnel, caller, called)


@pytest.mark.usefixtures("guarded")
def test_a_tag_before_a_denied_packet_opens_no_way(tunnel: ByTunnel) -> None:
    pairs = list(neighbours(tunnel))
    if not pairs:
        pytest.skip("by the plan no two replicas are on one host")
    for source, target in pairs:
        assert_no_way(tunnel, source, target)


def _assert_denied_again(tunnel: ByTunnel, caller: Seat, called: Seat) -> None:
    """Send from the other end, as root there can, what the guard of the called's host denies."""
    end, ports = tunnel.other(called.host), range(50000, 50000 + len(TAGS))
    with tunnel.prober(called.host).listening([Listener("udp", called.space)]) as found:
        to = End(tunnel.mac(called), called.address, found.ports[0])
        frames = [
            datagram(End(tunnel.mac(caller), caller.address, port), to, b"?", tags)
            for port, tags in zip(ports, TAGS, strict=True)
        ]
        good = datagram(End(tunnel.mac(caller), caller.address, ports.stop), to, b"?")
        tunnel.machine(called).run(sending(called.tier.bridge, [good]))
        goal = [str(tunnel.stretched.endpoint(called.host)), str(tunnel.plan.tunnel.port), "1"]
        for frame in frames:
            end.machine.run(["python3", "-c", SEND, wrapped(tunnel.plan.tunnel.vni, frame).hex(), *goal])
    seen = {int(peer.rpartition(":")[2]) for peer in found.seen[0]}
    assert seen == {ports.stop}, f"{called.name}: expected: what its own host sends alone; seen: {sorted(seen)}"


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
            if goal != name or ends[name].sysctl("net.ipv4.ip_forward"):  # who routes nothing says nothing, either
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
