"""One end of a TCP connection that is measured: ``python3 -P - take|give ADDRESS PORT``; the giver prints JSON.

It runs on a host, from its standard input, and needs nothing but Python's standard library. Who takes waits for one
connection for each measurement, and ends by itself. Who gives sends many bytes and waits until all have been read; then
it sends one byte and has it back, again and again.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

#: Bytes of one write, and of all of them; round trips; seconds that either end waits at most.
PIECE, BYTES, TRIPS, PATIENCE = 1 << 18, 1 << 28, 2000, 30.0
_PAUSE_S = 0.02


def take(address: str, port: int) -> None:
    """Read what comes, and say when it was all; then send back what comes."""
    with socket.create_server((address, port)) as server:
        server.settimeout(PATIENCE)
        link, _ = server.accept()
        with link:
            link.settimeout(PATIENCE)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            left = BYTES
            while left and (data := link.recv(min(PIECE, left))):
                left -= len(data)
            link.sendall(b"!")
            while data := link.recv(1):
                link.sendall(data)


def give(address: str, port: int) -> dict[str, float]:
    """Return bytes a second, and the median of round trips in seconds."""
    with _connected((address, port)) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data, began = bytes(PIECE), time.perf_counter()
        for _ in range(BYTES // PIECE):
            link.sendall(data)
        _answer(link)
        rate = BYTES / (time.perf_counter() - began)
        trips = []
        for _ in range(TRIPS):
            began = time.perf_counter()
            link.sendall(b"?")
            _answer(link)
            trips.append(time.perf_counter() - began)
    return {"throughput": rate, "trip": sorted(trips)[TRIPS // 2]}


def _answer(link: socket.socket) -> None:
    """Read one byte; a connection that ends is no answer."""
    if not link.recv(1):
        raise ConnectionError("the other end has closed")


def _connected(target: tuple[str, int]) -> socket.socket:
    """Connect to somebody who may not be there yet, and then refuses."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(target, timeout=PATIENCE)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            select.select([], [], [], _PAUSE_S)


def main() -> None:
    """Be one of the ends."""
    _, what, address, port = sys.argv
    if what == "take":
        take(address, int(port))
    else:
        json.dump(give(address, int(port)), sys.stdout)


if __name__ == "__main__":
    main()
