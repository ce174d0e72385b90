"""Serves under uvicorn, and stops without losing anybody who has connected.

uvicorn by itself closes its listening socket together with all connections on which no request has arrived yet: whoever
waits to be accepted at that moment, or has just been accepted, is reset, and nobody can tell whether what he sent was
done. So it is told to stop only when all who have connected were heard.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import socket
import struct
from threading import Event

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Server

from services.common.serve import SIGNALS, config
from services.common.settings import ServerSettings
from services.common.web import LEAVING

#: Seconds until those who have connected are accepted, and until what they send has arrived.
_ACCEPTED_S, _ARRIVED_S = 0.02, 0.1

#: linux/filter.h: a program that drops what has SYN and no ACK in its TCP flags (byte 13 of the header, RFC 9293).
_DROP_NEW = (
    (0x30, 0, 0, 13),  # load the byte
    (0x54, 0, 0, 0x12),  # and with SYN | ACK
    (0x15, 0, 1, 0x02),  # SYN alone: the next one; else the one after it
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # take
)
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h

_log = logging.getLogger("services.leaving")


def serve(settings: ServerSettings, app: ASGIApp, listener: socket.socket) -> None:
    """Serve on a listening socket until a signal comes, then stop gracefully; a second signal cuts that short."""
    leaving = _Leaving(app, listener)
    leaving.server = Server(config(settings, leaving))
    leaving.server.run(sockets=[listener])


class _Leaving:
    """Around the application, in whose lifespan it takes the signals over from uvicorn."""

    server: Server

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        self._app = app
        self._listener = listener
        self._told = Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"][LEAVING] = self._told  # uvicorn gives each request a copy of this state
            loop = asyncio.get_running_loop()
            for number in SIGNALS:
                loop.add_signal_handler(number, self._begin)
        await self._app(scope, receive, send)

    def _begin(self) -> None:
        if self._told.is_set():
            self.server.should_exit = self.server.force_exit = True
            return
        self._told.set()
        try:
            drop_new(self._listener)
        except OSError as error:  # some kernels let only root do it
            _log.debug("new connections are taken until the end", extra={"reason": str(error)})
            self._listener.listen(0)
        asyncio.get_running_loop().call_later(_ACCEPTED_S, self._close)

    def _close(self) -> None:
        # From here on whoever connects is refused, and goes to another replica.
        for server in self.server.servers:
            server.close()
        self._listener.close()
        asyncio.get_running_loop().call_later(_ARRIVED_S, self._end)

    def _end(self) -> None:
        self.server.should_exit = True


def drop_new(listener: socket.socket) -> None:
    """Have the kernel drop new connections to a listening socket; those already made can still be accepted.

    Closing it would reset those (listen(2) knows no other way); one who is dropped asks again after a second
    (RFC 6298), and is refused by then.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _DROP_NEW))
    # struct sock_fprog: the number of steps, and a pointer to them.
    listener.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_DROP_NEW), ctypes.addressof(program))
    )
