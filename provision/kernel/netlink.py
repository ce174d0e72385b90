"""Rtnetlink in batches: pyroute2 encodes the requests, many of them travel in one send.

A batch costs one system call and the kernel's own work; one process or one round trip a step is what makes other ways
slow. Of an answer only the few attributes that somebody asks for are decoded: a link alone has about sixty. Every
message is acknowledged, so a refusal names the very step that was refused (rtnetlink(7), netlink(7)).
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from errno import EOPNOTSUPP
from typing import TypeAlias

from provision.kernel.messages import ifaddrmsg, ifinfmsg, ndmsg, nlmsg, rtmsg
from underlay.errors import NotReady, Problem

#: The value of a netlink attribute as pyroute2 takes it: nested attributes are mappings with a list under "attrs".
Value: TypeAlias = int | str | bytes | Mapping[str, "Value | Attributes"]
Attributes: TypeAlias = Sequence[tuple[str, Value]]

# include/uapi/linux/rtnetlink.h and netlink.h
NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
CREATE, EXCLUSIVE, REPLACE, APPEND = 0x400, 0x200, 0x100, 0x800
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _SO_RCVBUFFORCE = 270, 10, 11, 33
_ACK_TLVS = 0x200
_HEADER = struct.Struct("=IHHII")
# The fixed part of a message: struct ifinfomsg, ifaddrmsg, rtmsg, ndmsg. The first field of each is the address family.
_FIELDS: Mapping[int, struct.Struct] = {
    GETLINK: struct.Struct("=BxHiII"),
    GETADDR: struct.Struct("=BBBBI"),
    GETROUTE: struct.Struct("=BBBBBBBBI"),
    GETNEIGH: struct.Struct("=BxxxiHBB"),
}

# Attributes of links, addresses, routes and neighbours that are read (include/uapi/linux/if_link.h, if_addr.h,
# rtnetlink.h, neighbour.h)
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO, IFLA_GROUP = 1, 3, 4, 5, 10, 18, 27
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_DATA = 1, 2, 5
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
NDA_DST, NDA_LLADDR, NDA_PORT, NDA_VNI, NDA_IFINDEX, NDA_MASTER, NDA_NH_ID = 1, 2, 6, 7, 8, 9, 13
#: States and flags of a neighbour: it stays for ever, and it is the device's own, not its bridge's.
NUD_PERMANENT, NUD_NOARP, NTF_SELF, NTF_MASTER = 0x80, 0x40, 0x02, 0x04

#: Bytes of one send: well below the default send buffer of a netlink socket.
_BATCH_BYTES = 64 * 1024
#: Receive buffer for the acknowledgements of one batch, in bytes.
_RECEIVE_BYTES = 8 * 1024 * 1024
#: Bytes of one answer: the kernel sends a list in pieces of at most 32 KiB (netlink_dump, net/netlink/af_netlink.c).
_ANSWER_BYTES = 64 * 1024
#: The upper bits of an attribute's number are flags (NLA_TYPE_MASK, include/uapi/linux/netlink.h).
_TYPE_MASK = 0x3FFF

_CLASSES: Mapping[int, type[nlmsg]] = {
    NEWLINK: ifinfmsg, DELLINK: ifinfmsg, GETLINK: ifinfmsg,
    NEWADDR: ifaddrmsg, DELADDR: ifaddrmsg, GETADDR: ifaddrmsg,
    NEWROUTE: rtmsg, DELROUTE: rtmsg, GETROUTE: rtmsg,
    NEWNEIGH: ndmsg, DELNEIGH: ndmsg, GETNEIGH: ndmsg,
}  # fmt: skip


class KernelRefused(NotReady):
    """The kernel answered a request with an error; ``errno`` is its number."""

    def __init__(self, where: str, what: str, errno: int, reason: str, module: str = "") -> None:
        self.errno = errno
        said = f"{os.strerror(errno)}" + (f" ({reason})" if reason else "")
        # Links of a kind that it does not know are answered so (rtnl_newlink, net/core/rtnetlink.c).
        unknown = module and errno == EOPNOTSUPP
        hint = f"load the kernel module {module}: modprobe {module}" if unknown else "run `check` to see what differs"
        super().__init__(Problem(where, f"the kernel refused to {what}: {said}", hint))


@dataclass(frozen=True, slots=True)
class Request:
    """One encoded message and, for errors, what it is to do ("add address 10.0.0.1/24 to eth0").

    ``module`` is the kernel module that it needs, where a kernel may be without.
    """

    what: str
    data: bytes
    module: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An object as the kernel tells it: its fixed fields in the order of the C struct, its attributes by number."""

    fields: tuple[int, ...]
    attributes: Mapping[int, bytes]

    def number(self, attribute: int) -> int:
        """Return an attribute that is a 32-bit number; 0 if there is none."""
        value = self.attributes.get(attribute)
        return int.from_bytes(value, sys.byteorder) if value else 0

    def text(self, attribute: int) -> str:
        """Return an attribute that is a string; "" if there is none."""
        return self.attributes.get(attribute, b"").rstrip(b"\0").decode(errors="replace")


def request(
    what: str, kind: int, flags: int, fields: Mapping[str, int], attributes: Attributes = (), module: str = ""
) -> Request:
    """Encode one request; its sequence number is set when it is sent."""
    message = _CLASSES[kind]()
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = list(attributes)
    message["header"]["type"] = kind
    message["header"]["flags"] = REQUEST | ACK | flags
    message.encode()
    return Request(what, bytes(message.data), module)


class Channel:
    """A netlink socket. It stays in the network namespace in which it was opened, wherever its thread goes."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.bind((0, 0))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, requests: Sequence[Request]) -> None:
        """Send requests in order, in as few batches as possible; raise KernelRefused at the first refusal."""
        batch = bytearray()
        pending: dict[int, Request] = {}
        for item in requests:
            if batch and len(batch) + len(item.data) > _BATCH_BYTES:
                self._exchange(batch, pending)
                batch, pending = bytearray(), {}
            self._sequence += 1
            data = bytearray(item.data)
            struct.pack_into("=I", data, 8, self._sequence)
            pending[self._sequence] = item
            batch += data
        if batch:
            self._exchange(batch, pending)

    def _exchange(self, batch: bytearray, pending: dict[int, Request]) -> None:
        self._socket.send(batch)
        refused: KernelRefused | None = None
        while pending:
            for kind, sequence, flags, body in self._receive():
                if kind != _ERROR or sequence not in pending:
                    continue
                item = pending.pop(sequence)
                number = -struct.unpack_from("=i", body)[0]
                if number and refused is None:
                    refused = KernelRefused(self._where, item.what, number, _reason(flags, body), item.module)
        if refused:
            raise refused

    def dump(self, kind: int, family: int = socket.AF_INET) -> list[Answer]:
        """Return all objects of a GET request of that kind."""
        layout = _FIELDS[kind]
        self._ask(kind, DUMP, bytes((family,)).ljust(layout.size, b"\0"))
        found: list[Answer] = []
        while True:
            for answer, sequence, _, body in self._receive():
                if sequence != self._sequence:
                    continue
                if answer == _DONE:
                    return found
                if answer == _ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    raise KernelRefused(self._where, f"list objects of kind {kind}", number, "")
                found.append(Answer(layout.unpack_from(body), dict(attributes(body, layout.size))))

    def group_of(self, index: int) -> int:
        """Return the group of one link, without listing all others; 0 if there is none."""
        layout = _FIELDS[GETLINK]
        self._ask(GETLINK, 0, layout.pack(socket.AF_UNSPEC, 0, index, 0, 0))
        for kind, sequence, _, body in self._receive():
            if kind == NEWLINK and sequence == self._sequence:
                found = (value for number, value in attributes(body, layout.size) if number == IFLA_GROUP)
                return int.from_bytes(next(found, b""), sys.byteorder)
        return 0

    def _ask(self, kind: int, flags: int, fields: bytes) -> None:
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(fields), kind, REQUEST | flags, self._sequence, 0) + fields)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(_ANSWER_BYTES)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, sequence, flags, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3


def _reason(flags: int, body: bytes) -> str:
    """Return the kernel's own words (NLMSGERR_ATTR_MSG, netlink extended acknowledgement), or ""."""
    if not flags & _ACK_TLVS:
        return ""
    # Behind the error number and, capped, the header of the request.
    words = (value for number, value in attributes(body, 4 + _HEADER.size) if number == 1)
    return next(words, b"").split(b"\0")[0].decode(errors="replace")


def attributes(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """Walk over a message's attributes: their number and value (struct nlattr, netlink(7))."""
    while offset + 4 <= len(body):
        length, number = struct.unpack_from("=HH", body, offset)
        if length < 4:
            return
        yield number & _TYPE_MASK, body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
