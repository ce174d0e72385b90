"""What the rules of a chain have counted, asked of the kernel itself; of the standard library, since it runs on hosts.

A look is taken after each attempt, and a program for each look (``iptables -L``) would cost ten times the attempt. The
messages are those of nfnetlink's nf_tables (linux/netfilter/nf_tables.h), which Debian's iptables speaks, too.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

# linux/netlink.h
_REQUEST_DUMP, _INTERRUPTED = 0x301, 0x10
_ERROR, _DONE = 2, 3
_TYPE = 0x3FFF  # without the marks "nested" and "in network byte order"
_HEAD, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
# linux/netfilter/nfnetlink.h, nf_tables.h
_NETFILTER, _GET_RULE = 12, (10 << 8) | 7
_FAMILY = struct.Struct(">BBH")
_TABLE, _CHAIN, _EXPRESSIONS = 1, 2, 4
_NAME, _DATA, _PACKETS = 1, 2, 2
_COUNTER = b"counter\0"


class Look:
    """Looks at one chain of the filter table, for IPv4."""

    def __init__(self, chain: str, limit: float) -> None:
        """``limit``: seconds that an answer may take."""
        self._chain = chain
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self._socket.settimeout(limit)
        body = _FAMILY.pack(socket.AF_INET, 0, 0) + _text(_TABLE, "filter") + _text(_CHAIN, chain)
        self._request = _HEAD.pack(_HEAD.size + len(body), _GET_RULE, _REQUEST_DUMP, 0, 0) + body

    def packets(self) -> int:
        """Return how many packets the rules of the chain have counted.

        LookupError when it has no rule, RuntimeError without an answer.
        """
        while True:
            try:
                self._socket.send(self._request)
                rules, whole = self._answer()
            except OSError as error:
                # Not to be taken for what became of the attempt that is looked after.
                raise RuntimeError(f"the kernel does not say what {self._chain} has counted: {error}") from error
            if whole:
                break
        if not rules:
            raise LookupError(f"the chain {self._chain} has no rule, or iptables here is not that of nf_tables")
        return sum(rules)

    def _answer(self) -> tuple[list[int], bool]:
        """Return the packets of each rule, and whether the rules stayed the same meanwhile."""
        rules: list[int] = []
        whole = True
        while True:
            data = memoryview(self._socket.recv(1 << 16))
            while data:
                length, kind, flags, _, _ = _HEAD.unpack_from(data)
                body, data = data[_HEAD.size : length], data[_aligned(length) :]
                whole = whole and not flags & _INTERRUPTED
                if kind in {_ERROR, _DONE}:
                    (code,) = struct.unpack_from("=i", body)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return rules, whole
                rules.append(_counted(body[_FAMILY.size :]))


def _counted(rule: memoryview) -> int:
    """Return the packets that the expressions of a rule have counted."""
    expressions = dict(_attributes(rule)).get(_EXPRESSIONS, memoryview(b""))
    fields = [dict(_attributes(expression)) for _, expression in _attributes(expressions)]
    counters = [dict(_attributes(item[_DATA])) for item in fields if bytes(item[_NAME]) == _COUNTER]
    return sum(int.from_bytes(counter[_PACKETS], "big") for counter in counters)


def _attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    while data:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & _TYPE, data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]


def _text(kind: int, text: str) -> bytes:
    data = text.encode() + b"\0"
    length = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + bytes(_aligned(length) - length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
