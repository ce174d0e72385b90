"""Faults of a tunnel: each stops all traffic, and counters tell which one it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from acceptance.phase3.counted import Counts, look
from acceptance.phase3.stage import ByTunnel
from acceptance.provisioning import provision
from acceptance.suite.stage import Seat
from underlay.topology.tunnel import BRIDGE, DEVICE
from underlay.wait import NotYet, until

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

#: Linux's own port for VXLAN, from before IANA gave it one (ip-link(8), dstport).
_OLD_PORT = 8472
#: Connections that are neither awaited nor over (ss(8)).
_OPEN = "ss -Htan state connected exclude time-wait"
#: Connections that are tried at once, so that what they count is told from what comes by itself: a question of ARP from
#: the other end, or a datagram of somebody who has nothing to do with it.
_TRIES = 20
#: Opens connections at once: to whom, to which port, how many, and for how many seconds; prints what came of them.
_CALL = """
import collections, errno, select, socket, sys, time
address, port, tries, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
seen, links, waiting = collections.Counter(), {}, select.poll()
for _ in range(tries):
    link = socket.socket()
    link.setblocking(False)
    link.connect_ex((address, port))
    links[link.fileno()] = link
    waiting.register(link, select.POLLOUT)
end = time.monotonic() + seconds
while links and (left := end - time.monotonic()) > 0:
    for number, _ in waiting.poll(left * 1000):
        code = links[number].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        seen["connected" if code == 0 else errno.errorcode[code]] += 1
        waiting.unregister(number)
        links.pop(number).close()
seen["no answer"] = len(links)
for name, count in seen.items():
    if count:
        print(name, count, sep="=")
"""


@dataclass(frozen=True, slots=True)
class Way:
    """The way of a connection: who calls whom, and the tunnel between them."""

    tunnel: ByTunnel
    caller: Seat
    called: Seat

    def end(self, seat: Seat) -> str:
        """Return the underlay address of a replica's host."""
        return str(self.tunnel.stretched.endpoint(seat.host))

    def wire(self, seat: Seat) -> str:
        """Return the link to the other host."""
        return self.tunnel.ends()[seat.host].vxlan(DEVICE).underlay


def _made_anew(way: Way, seat: Seat, **changed: str) -> list[str]:
    """Return the commands that make a host's device again, with something of it changed."""
    planned, mtu = way.tunnel.plan.tunnel, str(way.tunnel.stretched.mtu)
    words = {"id": str(planned.vni), "dstport": str(planned.port), "local": way.end(seat), "mtu": mtu} | changed
    far = next(item for item in (way.caller, way.called) if item.host != seat.host)
    group = way.tunnel.ends()[seat.host].links[DEVICE].group  # so that it is whose it was
    made = f"ip link add {DEVICE} group {group} mtu {words['mtu']} type vxlan id {words['id']} "
    return [
        f"wire={way.wire(seat)}",
        f"ip link delete {DEVICE}",
        f"{made}dstport {words['dstport']} local {words['local']} dev $wire nolearning",
        f"sysctl -qw net.ipv6.conf.{DEVICE}.disable_ipv6=1",
        f"ip link set {DEVICE} master {BRIDGE} up",
        f"bridge fdb append 00:00:00:00:00:00 dev {DEVICE} dst {way.end(far)}",
    ]


def _nowhere(way: Way) -> list[str]:
    mac = way.tunnel.mac(way.called)
    return [f"bridge fdb delete {entry} dev {DEVICE} dst {way.end(way.called)}" for entry in (mac, "00:00:00:00:00:00")]


def _another_source(way: Way) -> list[str]:
    """Have an end answer from an address that is not the one it is called at (moby/moby, issue 53004)."""
    plan = way.tunnel.plan
    taken = {plan.underlay.gateway.ip, *(host.address.ip for host in plan.hosts)}
    other = next(address for address in reversed(list(plan.underlay.subnet.hosts())) if address not in taken)
    wire = way.wire(way.called)
    return [f"ip address add {other}/32 dev {wire}", *_made_anew(way, way.called, local=str(other))]


def _blocked(way: Way) -> list[str]:
    return [f"iptables -w -t raw -I PREROUTING -p udp --dport {way.tunnel.plan.tunnel.port} -j DROP"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done, on the caller's host or on that of the called; what undoes what converge does not; what it shows.

    ``shows`` are the counters that rise: at the caller's end, and at the other.
    """

    at_caller: bool
    commands: Callable[[Way], Sequence[str]]
    shows: tuple[frozenset[str], frozenset[str]]
    clear: Callable[[Way], Sequence[str]] = lambda way: ()


def _shows(*names: str) -> frozenset[str]:
    return frozenset(names)


#: What comes of the connections if all of them are answered, and if none is.
_ALL, _NONE = f"connected={_TRIES}", f"no answer={_TRIES}"

FAULTS: Mapping[str, Fault] = {
    "nobody knows where to": Fault(True, _nowhere, (_shows("lost"), _shows())),
    "another VNI": Fault(
        False,
        lambda way: _made_anew(way, way.called, id=str(way.tunnel.plan.tunnel.vni + 1)),
        (_shows("sent"), _shows("let_in")),
    ),
    "the other port": Fault(
        True,
        lambda way: _made_anew(way, way.caller, dstport=str(_OLD_PORT)),
        (_shows("sent"), _shows("nobody")),
    ),
    "blocked on the way there": Fault(
        False, _blocked, (_shows("sent"), _shows()), lambda way: [_blocked(way)[0].replace(" -I ", " -D ")]
    ),
    "blocked on the way back": Fault(
        True,
        _blocked,
        (_shows("sent"), _shows("let_in", "taken", "sent")),
        lambda way: [_blocked(way)[0].replace(" -I ", " -D ")],
    ),
    "answers from another address": Fault(
        False,
        _another_source,
        (_shows("sent", "kept_out"), _shows("let_in", "taken", "sent")),
        lambda way: [_another_source(way)[0].replace(" add ", " delete ")],
    ),
}


@contextmanager
def _broken(way: Way, fault: Fault) -> Iterator[None]:
    """Have a fault for a while."""
    seat = way.caller if fault.at_caller else way.called
    host, clear = way.tunnel.machine(seat), fault.clear(way)
    with ExitStack() as stack:
        stack.callback(_mend, way, seat)
        stack.callback(host.run, ["sh", "-c", "\n".join(clear)], check=False)
        host.run(["sh", "-e", "-c", "\n".join(fault.commands(way))])
        yield


def _mend(way: Way, seat: Seat) -> None:
    made = provision(way.tunnel.machine(seat), "converge", way.tunnel.phase)
    assert made.exit_code == 0, f"{seat.host}: expected: mended; seen: {made}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of connections, and what both ends have counted meanwhile."""

    outcome: str
    caller: Counts
    called: Counts


@pytest.fixture(scope="module")
def route(tunnel: ByTunnel, caller: Seat, called: Seat) -> Way:
    """Return the way that is tried."""
    return Way(tunnel, caller, called)


def _try(way: Way) -> Seen:
    """Connect, often at once. What earlier connections have to say is over before: it would be counted, too."""
    _silent(way)
    before = look(way.tunnel, way.caller, way.called)
    with way.tunnel.serving():  # whoever called in vain is forgotten with who served: he is answered for a minute else
        words = (
            str(way.called.address),
            str(way.called.service.port),
            str(_TRIES),
            str(way.tunnel.plan.timeouts.connect),
        )
        outcome = way.tunnel.inside(way.caller).check_output("python3 -c %s %s %s %s %s", _CALL, *words)
        after = look(way.tunnel, way.caller, way.called)
    here, there = (after[seat.host].since(before[seat.host]) for seat in (way.caller, way.called))
    return Seen(" ".join(outcome.split("\n")), here, there)


def _silent(way: Way) -> None:
    """Wait until neither end has a connection that may still send: who is in TIME-WAIT has had the last answer."""

    def over() -> bool | NotYet:
        places = [way.tunnel.inside(seat) for seat in (way.caller, way.called)]
        left = [line for place in places for line in place.check_output(_OPEN).splitlines()]
        return not left or NotYet("; ".join(left))

    until(over, deadline_s=way.tunnel.plan.timeouts.ready, what="the end of all connections", where=way.called.host)


def _rising(counts: Counts) -> frozenset[str]:
    """Return what has counted the connections: one of them may be lost, and more may come by themselves."""
    return frozenset(name for name in Counts.__slots__ if getattr(counts, name) > _TRIES / 2)


@pytest.fixture(scope="module")
def faults(route: Way) -> Mapping[str, Seen]:
    """Have each fault for a while, and connect meanwhile; in between it works."""
    way = route
    found = {"none": _try(way)}
    for name, fault in FAULTS.items():
        with _broken(way, fault):
            found[name] = _try(way)

        def works() -> bool | NotYet:
            seen = _try(way).outcome
            return seen == _ALL or NotYet(seen)

        limit = way.tunnel.plan.timeouts.ready
        until(works, deadline_s=limit, what=f"a way again after: {name}", where=way.caller.host)
    return found


def test_without_a_fault_packets_go_there_and_back(faults: Mapping[str, Seen]) -> None:
    seen = faults["none"]
    assert seen.outcome == _ALL, f"expected: {_ALL}; seen: {seen.outcome}"
    expected = _shows("sent", "let_in", "taken")
    for where, counts in (("caller", seen.caller), ("called", seen.called)):
        assert _rising(counts) == expected, f"{where}'s end: expected: {sorted(expected)} rise; seen: {counts}"


@pytest.mark.parametrize("name", FAULTS)
def test_fault_stops_traffic(faults: Mapping[str, Seen], name: str) -> None:
    outcome = faults[name].outcome
    assert outcome == _NONE, f"{name}: expected: {_NONE}; seen: {outcome}"


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_told_by_its_counters(faults: Mapping[str, Seen], name: str) -> None:
    seen, (here, there) = faults[name], FAULTS[name].shows
    assert _rising(seen.caller) == here, f"{name}: caller's end: expected: {sorted(here)} rise; seen: {seen.caller}"
    assert _rising(seen.called) == there, f"{name}: the other end: expected: {sorted(there)} rise; seen: {seen.called}"


def test_no_two_faults_show_the_same() -> None:
    shown = [fault.shows for fault in FAULTS.values()]
    assert len(set(shown)) == len(shown), f"expected: each shows something of its own; seen: {shown}"
