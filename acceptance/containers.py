"""Prints, as JSON, what Docker says of containers on the host it runs on; their names are its input, a list.

Nothing but Python's standard library: a `docker` command for each question would cost ten times as much.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
from urllib.parse import quote

_SOCKET = "/run/docker.sock"
#: Seconds for one answer.
_LIMIT_S = 10


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(_SOCKET)


def _inspect(connection: http.client.HTTPConnection, name: str) -> object:
    connection.request("GET", f"/containers/{quote(name)}/json")
    answer = connection.getresponse()
    body = json.loads(answer.read())
    return body if answer.status == http.HTTPStatus.OK else None


def main() -> None:
    """Print what `docker container inspect` shows of each, by name; null for one that is not there."""
    connection = _Connection("localhost", timeout=_LIMIT_S)
    json.dump({name: _inspect(connection, name) for name in json.load(sys.stdin)}, sys.stdout)
    connection.close()


if __name__ == "__main__":
    main()
