"""Frames as they pass a link, taken apart: Ethernet, IPv4, TCP or UDP, VXLAN, and the frame inside.

IEEE 802.3, RFC 791, RFC 768, RFC 9293, RFC 7348 (section 5).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from underlay.hosts.base import Host

_IPV4, _ARP, _TCP, _UDP = 0x0800, 0x0806, 6, 17
_DONT_FRAGMENT, _MORE_OR_OFFSET = 0x4000, 0x3FFF
#: The I flag: the VNI is valid.
_VALID = 0x08
#: An EtherType for experiments (IEEE 802, Local Experimental Ethertype 1): no rule of IPv4 has a say in it.
EXPERIMENT = 0x88B5


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame. ``size`` is that of the IPv4 packet in it, ``payload`` what UDP carries, or all that is no packet.

    A question or answer of ARP (RFC 826) has its addresses of IPv4, and no size.
    ``whole`` says that the packet must not be cut into pieces, ``fragment`` that it is a piece.
    """

    source_mac: str
    target_mac: str
    kind: int
    source: IPv4Address | None = None
    target: IPv4Address | None = None
    protocol: int = 0
    size: int = 0
    whole: bool = False
    fragment: bool = False
    source_port: int = 0
    target_port: int = 0
    payload: bytes = b""

    @property
    def tcp(self) -> bool:
        """Whether it carries TCP."""
        return self.protocol == _TCP

    @property
    def udp(self) -> bool:
        """Whether it carries UDP."""
        return self.protocol == _UDP


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A packet of a VXLAN: the frame that carries it, its network's number, and the frame inside."""

    outer: Frame
    vni: int
    inner: Frame


def read(data: bytes) -> Frame:
    """Take a frame apart."""
    target, source, kind = data[:6].hex(":"), data[6:12].hex(":"), int.from_bytes(data[12:14])
    packet = data[14:]
    if kind == _ARP:
        sender, asked = IPv4Address(packet[14:18]), IPv4Address(packet[24:28])
        return Frame(source, target, kind, source=sender, target=asked, payload=packet)
    if kind != _IPV4:
        return Frame(source, target, kind, payload=packet)
    head = (packet[0] & 15) * 4
    size, flags, protocol = int.from_bytes(packet[2:4]), int.from_bytes(packet[6:8]), packet[9]
    segment = packet[head:size] if size else packet[head:]
    source_port, target_port = struct.unpack_from("!HH", segment) if protocol in {_TCP, _UDP} else (0, 0)
    return Frame(
        source_mac=source,
        target_mac=target,
        kind=kind,
        source=IPv4Address(packet[12:16]),
        target=IPv4Address(packet[16:20]),
        protocol=protocol,
        size=size or len(packet),
        whole=bool(flags & _DONT_FRAGMENT),
        fragment=bool(flags & _MORE_OR_OFFSET),
        source_port=int(source_port),
        target_port=int(target_port),
        payload=segment[8:] if protocol == _UDP else segment,
    )


def unwrap(frame: Frame, port: int) -> Wrapped | None:
    """Return what a frame carries if it is one of a VXLAN on that UDP port."""
    if not frame.udp or frame.target_port != port or not frame.payload or not frame.payload[0] & _VALID:
        return None
    return Wrapped(frame, int.from_bytes(frame.payload[4:7]), read(frame.payload[8:]))


def wrap(vni: int, target_mac: str, source_mac: str, text: bytes) -> bytes:
    """Return what a UDP packet has to carry so that a VXLAN of that number takes a frame with ``text`` out of it."""
    inner = bytes.fromhex((target_mac + source_mac).replace(":", "")) + EXPERIMENT.to_bytes(2) + text.ljust(46, b"\0")
    return wrapped(vni, inner)


def wrapped(vni: int, frame: bytes) -> bytes:
    """Return what a UDP packet has to carry so that a VXLAN of that number takes a frame out of it."""
    return struct.pack("!B3xI", _VALID, vni << 8) + frame


@dataclass(frozen=True, slots=True)
class Recorded:
    """What passed a link while a program ran, and what that printed."""

    frames: Sequence[Frame]
    output: str


def record(host: Host, link: str, argv: Sequence[str], stdin: str, *, seconds: float) -> Recorded:
    """Record a link of a host while a program runs there, which may take so many seconds."""
    request = {"link": link, "argv": list(argv), "stdin": stdin, "seconds": seconds}
    done = host.run(["python3", "-m", "acceptance.capture"], stdin=json.dumps(request), timeout=3 * seconds)
    answer = json.loads(done.stdout)
    return Recorded([read(bytes.fromhex(item)) for item in answer["frames"]], answer["output"])
