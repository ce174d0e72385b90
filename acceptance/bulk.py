"""Carries many bytes over one TCP connection: ``python3 -m acceptance.bulk < request.json > answer.json``.

It runs on the hosts of the lab and needs nothing but Python's standard library. Both ends answer with how many bytes it
was, and their digest.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from acceptance.inside import inside

_PIECE = 1 << 20


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
    target = (request["address"], request["port"])
    with inside(request["namespace"]):
        link = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    link.settimeout(request["seconds"])
    if request["pieces"]:
        _connect(link, target, time.monotonic() + request["seconds"])
        size, digest = give(link, request["pieces"], request["port"])
    else:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.bind(target)
        link.listen(1)
        peer, _ = link.accept()
        peer.settimeout(request["seconds"])
        size, digest = take(peer)
    json.dump({"bytes": size, "sha256": digest}, sys.stdout)


def _connect(link: socket.socket, target: tuple[str, int], deadline: float) -> None:
    """Connect to somebody who may not be there yet, and then refuses."""
    while True:
        try:
            link.connect(target)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
        else:
            return


if __name__ == "__main__":
    main()
