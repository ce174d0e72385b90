"""A question to a PostgreSQL server over its unix socket.

The protocol is version 3.0, and as little of it as a question needs (PostgreSQL's documentation, "Frontend/Backend
Protocol"); `psql` speaks it too, but takes longer to start than everything else that is looked at.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from underlay.errors import NotReady, Problem

_VERSION = 3 << 16
_HEAD = struct.Struct(">cI")
#: Types of messages ("Message Formats").
_AUTHENTICATION, _READY, _ROW, _ERROR = b"R", b"Z", b"D", b"E"
_QUERY, _TERMINATE = b"Q", b"X"
#: The field of an error that is meant for people ("Error and Notice Message Fields").
_FOR_PEOPLE = b"M"


def ask(path: Path, statement: str, *, user: str, database: str, timeout: float, where: str) -> str:
    """Return the first value of the first row that a statement gives; "" if there is none, or it is NULL.

    ``path`` is the server's socket, which lets ``user`` in without a password; ``timeout`` is in seconds, for each time
    that the server lets us wait. Raises NotReady with what the server said, or why it did not answer.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(timeout)
            link.connect(str(path))
            words = b"".join(word.encode() + b"\0" for word in ("user", user, "database", database, ""))
            link.sendall(struct.pack(">II", 8 + len(words), _VERSION) + words)
            list(_until_ready(link, where))
            link.sendall(_message(_QUERY, statement.encode() + b"\0"))
            rows = list(_until_ready(link, where))
            link.sendall(_message(_TERMINATE, b""))
    except OSError as error:
        hint = f"is PostgreSQL running? Its socket is {path}"
        raise NotReady(Problem(where, f"PostgreSQL does not answer: {error}", hint)) from error
    return _first_value(rows[0]) if rows else ""


def _message(kind: bytes, body: bytes) -> bytes:
    return _HEAD.pack(kind, 4 + len(body)) + body


def _until_ready(link: socket.socket, where: str) -> Iterator[bytes]:
    """Yield the rows that come before the server is ready for the next statement."""
    while True:
        kind, size = _HEAD.unpack(_exactly(link, _HEAD.size))
        body = _exactly(link, size - 4)
        if kind == _READY:
            return
        if kind == _ERROR:
            fields = {field[:1]: field[1:].decode(errors="replace") for field in body.split(b"\0") if field}
            raise NotReady(Problem(where, f"PostgreSQL refused: {fields.get(_FOR_PEOPLE, 'it does not say why')}"))
        if kind == _AUTHENTICATION and any(body):
            raise NotReady(Problem(where, "PostgreSQL asks for a password on its own socket"))
        if kind == _ROW:
            yield body


def _exactly(link: socket.socket, size: int) -> bytes:
    parts = []
    while size > 0:
        part = link.recv(size)
        if not part:
            raise ConnectionResetError("it ended the connection")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _first_value(row: bytes) -> str:
    columns, size = struct.unpack_from(">Hi", row) if len(row) > 2 else (0, -1)
    return row[6 : 6 + size].decode(errors="replace") if columns and size >= 0 else ""
