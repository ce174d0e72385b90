"""Frames made by hand: what no socket would send, sent as a program with all rights of a place would.

IEEE 802.3 and 802.1Q, RFC 791, RFC 768.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

_IPV4, _UDP = 0x0800, 17
#: Sends frames on a link of the place it runs in: the link, and each frame as hexadecimal digits.
_SEND = """
import socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind((sys.argv[1], 0))
for frame in sys.argv[2:]:
    link.send(bytes.fromhex(frame))
"""


@dataclass(frozen=True, slots=True)
class End:
    """Who sends, or is sent to: MAC address, IPv4 address and UDP port."""

    mac: str
    address: IPv4Address
    port: int


def datagram(source: End, target: End, text: bytes, tags: Sequence[int] = ()) -> bytes:
    """Return a frame with a UDP packet. ``tags`` are EtherTypes of VLAN tags before it, each of VLAN 0."""
    length = 8 + len(text)
    udp = struct.pack("!HHHH", source.port, target.port, length, 0) + text  # no checksum
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0, 64, _UDP, 0, source.address.packed,
                       target.address.packed)  # fmt: skip
    packet = head[:10] + _checksum(head).to_bytes(2) + head[12:] + udp
    # A tag is its EtherType, and what follows it: priority and VLAN, both 0.
    kinds = b"".join(tag.to_bytes(2) + bytes(2) for tag in tags) + _IPV4.to_bytes(2)
    return bytes.fromhex((target.mac + source.mac).replace(":", "")) + kinds + packet


def sending(link: str, frames: Sequence[bytes]) -> list[str]:
    """Return the program that sends frames on a link."""
    return ["python3", "-c", _SEND, link, *(frame.hex() for frame in frames)]


def _checksum(head: bytes) -> int:
    total = int(sum(struct.unpack(f"!{len(head) // 2}H", head)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
