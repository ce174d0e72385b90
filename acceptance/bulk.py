"""Carries many bytes over one TCP connection: ``python3 -m acceptance.bulk < request.json > answer.json``.

It runs on the hosts of the lab and needs nothing but Python's standard library. Both ends answer with how many bytes it
was, and their digest.
"""

from __future__ import annotations

import hashlib
import json
import random
import select
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from acceptance.inside import inside

_PIECE = 1 << 20
_PAUSE_S = 0.02


def give(link: socket.socket, pieces: int, seed: int) -> tuple[int, str]:
    """Send so many MiB of chance; return how many bytes it was, and their digest."""
    digest, drawn = hashlib.sha256(), random.Random(seed)  # noqa: S311 - bytes that do not compress, no secret
    with link:
        for _ in range(pieces):
            data = drawn.randbytes(_PIECE)
            digest.update(data)
            link.sendall(data)
    return pieces * _PIECE, digest.hexdigest()


def take(link: socket.socket) -> tuple[int, str]:
    """Read until the other side closes; return the same."""
    digest, size = hashlib.sha256(), 0
    with link:
        while data := link.recv(_PIECE):
            digest.update(data)
            size += len(data)
    return size, digest.hexdigest()


def main() -> None:
    """Read a request: ``namespace``, ``address``, ``port``, ``seconds``, ``pieces`` to give (0: take); answer it."""
    request = json.load(sys.stdin)
    target, seconds = (request["address"], request["port"]), request["seconds"]
    with inside(request["namespace"]):
        if request["pieces"]:
            link = _connected(target, seconds)
        else:
            server = socket.create_server(target)  # of which an address may be taken again at once
            server.settimeout(seconds)
    if request["pieces"]:
        size, digest = give(link, request["pieces"], request["port"])
    else:
        peer, _ = server.accept()
        peer.settimeout(seconds)
        size, digest = take(peer)
    json.dump({"bytes": size, "sha256": digest}, sys.stdout)


def _connected(target: tuple[str, int], seconds: float) -> socket.socket:
    """Connect to somebody who may not be there yet, and then refuses; each time with a socket that has seen nothing."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(target, timeout=seconds)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            select.select([], [], [], _PAUSE_S)


if __name__ == "__main__":
    main()
