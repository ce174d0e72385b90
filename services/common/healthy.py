"""`python3 -m services.common.healthy`: whether the service with this environment says that it is well.

For the health check of a container, which runs it every few seconds: it imports as little as it can.
"""

from __future__ import annotations

import os
import socket

#: Seconds for its answer: it asks whom it depends on.
_TIMEOUT_S = 4.0
_LONGEST_LINE = 64


def healthy(address: str, port: int, timeout: float = _TIMEOUT_S) -> bool:
    """Whether /health is answered with 200. Raises OSError if nobody answers."""
    with socket.create_connection((address, port), timeout=timeout) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        line = b""
        while b"\r" not in line and (piece := connection.recv(_LONGEST_LINE)):
            line += piece
    return line.split(b" ")[1:2] == [b"200"]


if __name__ == "__main__":
    raise SystemExit(0 if healthy(os.environ["BIND_ADDRESS"], int(os.environ["PORT"])) else 1)
