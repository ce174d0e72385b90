"""A request over a Unix socket: how a supervisor, or a container engine, is asked on its own machine."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered: HTTP's status code with its words, and the body, put together if it came in chunks."""

    status: int
    reason: str
    body: bytes


def request(
    path: Path,
    method: str,
    target: str,
    *,
    timeout: float,
    body: str | bytes | None = None,
    headers: Mapping[str, str] = _NONE,
) -> Answer:
    """Ask the server whose socket is at ``path``, and return its answer, whatever its status.

    ``timeout`` is in seconds, for each time that the server lets us wait. A ``str`` as body is sent as UTF-8. OSError
    when there is no server, it does not answer in time, or what it answers is not HTTP (RFC 9112) or not whole.
    """
    connection = _Connection(path, timeout)
    try:
        # A server may answer, and close, before it has read all of a request; the answer is there to be read then.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, target, body.encode() if isinstance(body, str) else body, dict(headers))
        response = connection.getresponse()
        return Answer(response.status, response.reason, response.read())
    except http.client.HTTPException as error:
        raise ConnectionError(f"not a whole answer in HTTP: {error!r}") from error
    finally:
        connection.close()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
