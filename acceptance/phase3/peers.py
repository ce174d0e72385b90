"""Frames that somebody forges and puts into the tunnel by the port of its ends, counted where they arrive."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

from acceptance.modules import LabHost
from acceptance.phase3.frames import wrap
from acceptance.phase3.stage import ByTunnel
from acceptance.suite.stage import Seat
from underlay.hosts.base import Machine
from underlay.phases import PHASES
from underlay.wait import NotYet, until

#: Sends a UDP packet many times: what, to whom, to which port, how often.
SEND = """
import socket, sys
link, data = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), bytes.fromhex(sys.argv[1])
link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for _ in range(int(sys.argv[4])):
    try:
        link.sendto(data, (sys.argv[2], int(sys.argv[3])))
    except PermissionError:
        pass  # a rule for what leaves a host tells who sends
"""
#: More than come by themselves meanwhile, and more than that.
FEW, MANY = 10, 100
#: A MAC address of nobody, locally administered.
_NOBODY = "02:00:00:00:00:99"


def forged(tunnel: ByTunnel, goal: Seat, vni: int, address: IPv4Address | None = None) -> list[str]:
    """Return the program that sends what a tunnel unwraps into frames that a replica's own link would take.

    To its host's address on the underlay, or to another one that this hears on.
    """
    data = wrap(vni, tunnel.mac(goal), _NOBODY, b"forged").hex()
    target = [str(address or tunnel.stretched.endpoint(goal.host)), str(tunnel.plan.tunnel.port), str(MANY)]
    return ["python3", "-c", SEND, data, *target]


def received(tunnel: ByTunnel, seat: Seat) -> int:
    """Return how many frames a replica's link has taken."""
    name = tunnel.inner(seat).name
    return int(tunnel.inside(seat).file(f"/sys/class/net/{name}/statistics/rx_packets").content_string)


def _denied(end: LabHost) -> int:
    """Return how many packets were denied by whichever phase, in whichever of the two tables."""
    chains = [(f"{phase.upper()}-DENY", table) for phase in PHASES for table in ("filter", "security")]
    return sum(end.rules(*chain).packets for chain in chains)


def assert_nothing_comes(
    tunnel: ByTunnel,
    goal: Seat,
    guard: LabHost,
    sender: Machine,
    enter: Sequence[str] = (),
    address: IPv4Address | None = None,
) -> None:
    """Fail unless what somebody forges is denied by a guard, and counted, and none of it arrives."""
    before, denied = received(tunnel, goal), _denied(guard)
    who = " ".join((sender.name, *enter))
    sender.run([*enter, *forged(tunnel, goal, tunnel.plan.tunnel.vni, address)])

    def counted() -> bool | NotYet:
        seen = _denied(guard) - denied
        return seen >= MANY or NotYet(f"{seen} packets")

    what = f"{MANY} packets of {who} to {goal.name} denied"
    until(counted, deadline_s=tunnel.plan.timeouts.connect, what=what, where=guard.name)
    seen = received(tunnel, goal) - before
    assert seen < FEW, f"{goal.name}: expected: nothing from {who}; seen: {seen} frames"
