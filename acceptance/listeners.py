"""Listeners on a host: in a process of their own, until somebody collects what they saw, or their time is over.

Nothing but Python's standard library: see ``probe.py``.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import time
from typing import TypedDict

from acceptance.inside import inside

#: linux/in.h: never fragment.
_IP_MTU_DISCOVER, _IP_PMTUDISC_DO = 10, 2
_ETH_P_ALL = 3  # linux/if_ether.h


class Listener(TypedDict):
    """Where to listen: ``protocol`` is tcp, udp, echo or dns-packets (all packets of port 53 on the link ``address``).

    ``port`` 0 is one that the kernel chooses.
    """

    protocol: str
    namespace: str | None
    address: str
    port: int


def whole_packets(link: socket.socket) -> None:
    """Have a TCP connection send what it is given at once, and never in fragments (IP_MTU_DISCOVER, ip(7))."""
    link.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def listen(listeners: list[Listener], lifetime: float) -> dict[str, object]:
    """Listen in a process of its own, which ends when it is collected, or after ``lifetime`` seconds."""
    sockets = [_listening(item) for item in listeners]
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.bind("")  # an abstract name that the kernel chooses (unix(7))
    control.listen()
    name = control.getsockname()
    answer: dict[str, object] = {
        "control": name.hex(),
        "ports": [0 if item.family == socket.AF_PACKET else item.getsockname()[1] for item in sockets],
    }
    if os.fork():
        return answer
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    _serve(sockets, control, lifetime, [item["protocol"] == "echo" for item in listeners])
    os._exit(0)


def _listening(item: Listener) -> socket.socket:
    with inside(item["namespace"]):
        if item["protocol"] == "dns-packets":
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            tap.bind((item["address"], _ETH_P_ALL))
            return tap
        kind = {"tcp": socket.SOCK_STREAM, "echo": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[item["protocol"]]
        server = socket.socket(socket.AF_INET, kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((item["address"], item["port"]))
        if kind == socket.SOCK_STREAM:
            server.listen(64)
        return server


def _serve(sockets: list[socket.socket], control: socket.socket, lifetime: float, echoes: list[bool]) -> None:
    deadline = time.monotonic() + lifetime
    seen: list[list[str]] = [[] for _ in sockets]
    waiting = selectors.DefaultSelector()
    for number, item in enumerate([*sockets, control]):
        item.setblocking(False)
        waiting.register(item, selectors.EVENT_READ, number)
    while (left := deadline - time.monotonic()) > 0:
        ready = {key.data for key, _ in waiting.select(left)}
        for number in ready - {len(sockets)}:
            peer = _meet(sockets[number], patience=left if echoes[number] else None)
            if peer:
                seen[number].append(peer)
        if ready == {len(sockets)}:  # asked for, and nothing is waiting any more
            for item in sockets:
                item.close()  # before the answer: whoever has it may want the same port again
            with control.accept()[0] as asker:
                asker.sendall(json.dumps(seen).encode())
            return


def _meet(item: socket.socket, *, patience: float | None) -> str:
    """Take one connection, datagram or packet; tell the peer what address it comes from.

    With ``patience``, what the peer of a connection says is returned instead, until so many seconds pass in silence.
    """
    if item.family == socket.AF_PACKET:
        return _dns_packet(item.recv(256))
    if item.type == socket.SOCK_STREAM:
        link, peer = item.accept()
        with link:
            if patience is not None:
                _return(link, patience)
            else:
                link.sendall(text_of(peer).encode())
        return text_of(peer)
    _, peer = item.recvfrom(4096)
    item.sendto(text_of(peer).encode(), peer)
    return text_of(peer)


def _return(link: socket.socket, patience: float) -> None:
    """Send everything back until the other side closes, or says nothing for long; in packets of full size, too."""
    link.settimeout(patience)
    whole_packets(link)
    try:
        while data := link.recv(65536):
            link.sendall(data)
    except OSError:
        pass


def _dns_packet(data: bytes) -> str:
    if len(data) < 24 or data[0] >> 4 != 4 or data[9] not in {socket.IPPROTO_TCP, socket.IPPROTO_UDP}:
        return ""
    source, target = struct.unpack_from("!HH", data, (data[0] & 15) * 4)
    here, there = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20])
    return f"{here}:{source} to {there}:{target}" if 53 in {source, target} else ""


def collect(control: str) -> list[list[str]]:
    """Return what each listener saw, and end them."""
    text = ""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        try:
            link.connect(bytes.fromhex(control))
            with link.makefile() as answer:
                text = answer.read()
        except (ConnectionRefusedError, ConnectionResetError):
            pass
    if not text:
        raise SystemExit("the listener has ended by itself: what was tried meanwhile outlived it")
    found: list[list[str]] = json.loads(text)
    return found


def text_of(address: tuple[str, int]) -> str:
    """Return an address and a port as people write them."""
    return f"{address[0]}:{address[1]}"
