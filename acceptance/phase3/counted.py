"""What both ends of the tunnel have counted, and what that says: how far packets come on their way there and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass

from acceptance.modules import LabHost
from acceptance.phase3.stage import ByTunnel
from acceptance.suite.stage import Seat
from underlay.topology.tunnel import DEVICE

_STATISTICS = ("tx_packets", "tx_dropped", "rx_packets")
_PEERS = "PHASE3-PEERS"


@dataclass(frozen=True, slots=True)
class Counts:
    """One end: frames its device has ``sent``, had nowhere to send (``lost``) and ``taken`` out of the tunnel.

    ``let_in`` and ``kept_out`` are packets to the tunnel's port, of other ends and of strangers; ``nobody`` are packets
    of UDP to a port on which nobody hears; ``cut`` are fragments made.
    """

    sent: int
    lost: int
    taken: int
    let_in: int
    kept_out: int
    nobody: int
    cut: int

    def since(self, before: Counts) -> Counts:
        """Return what has been counted since."""
        return Counts(*(now - then for now, then in zip(astuple(self), astuple(before), strict=True)))


def count(end: LabHost) -> Counts:
    """Look at one end, in one command."""
    files = " ".join(f"/sys/class/net/{DEVICE}/statistics/{name}" for name in _STATISTICS)
    said = end.check_output(f"cat {files}; nstat -asz UdpNoPorts IpFragCreates; iptables-save -c -t filter")
    sent, lost, taken = map(int, said.split()[:3])
    peers = re.findall(rf"^\[(\d+):\d+\] -A {_PEERS} (.*)$", said, re.MULTILINE)
    return Counts(
        sent,
        lost,
        taken,
        sum(int(packets) for packets, rule in peers if rule.endswith("-j RETURN")),
        sum(int(packets) for packets, rule in peers if not rule.endswith("-j RETURN")),
        _of(said, "UdpNoPorts"),
        _of(said, "IpFragCreates"),
    )


def _of(said: str, name: str) -> int:
    (found,) = re.findall(rf"^{name}\s+(\d+)", said, re.MULTILINE)
    return int(found)


def look(tunnel: ByTunnel, *seats: Seat) -> Mapping[str, Counts]:
    """Look at the ends of replicas, by the name of their host."""
    ends = tunnel.ends()
    return {seat.host: count(ends[seat.host]) for seat in seats}
