"""Starts a service under uvicorn: one process with one event loop, stopped gracefully by SIGTERM."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

from services.common import logs
from services.common.settings import ServerSettings, SettingsError

if TYPE_CHECKING:  # imported only when the settings are right
    from starlette.types import ASGIApp
    from uvicorn import Config

#: Seconds that an idle connection is kept. Longer than its clients (nginx, aiohttp) keep it, so that they close
#: first and never send on a connection that is just being closed.
_KEEP_ALIVE = 75

#: Connections that may wait to be accepted; the kernel's own limit is lower (net.core.somaxconn).
_BACKLOG = 2048

#: Open files at most, if the system allows so many; more than the edge's own clients need.
_FILES = 8192

#: Exit codes for wrong settings, and for an address that is taken.
USAGE, NOT_READY = 2, 3
#: What stops a service.
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Settings(Protocol):
    """What every service's settings have."""

    @property
    def server(self) -> ServerSettings:
        """How to listen."""
        ...


_Settings = TypeVar("_Settings", bound=Settings)


def main(
    service: str,
    read: Callable[[Mapping[str, str]], _Settings],
    create_app: Callable[[_Settings], ASGIApp],
) -> int:
    """Read the settings from the environment and serve until SIGTERM.

    Returns 2 if the settings are wrong, 3 if the address is taken or not there.
    """
    try:
        settings = read(os.environ)
    except SettingsError as error:
        for mistake in error.mistakes:
            print(f"{service}: {mistake}", file=sys.stderr)
        return USAGE
    for number in SIGNALS:
        signal.signal(number, _leave)  # until it serves
    logs.configure(service, settings.server.replica, settings.server.level)
    # Each connection is an open file, and so is what is asked for it behind; by default there are 1024.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, most), most))
    try:
        listener = listen(settings.server)
    except OSError as error:
        print(f"{service}: cannot listen on {settings.server.bind_address}: {error}", file=sys.stderr)
        return NOT_READY
    from services.common.leaving import serve

    serve(settings.server, create_app(settings), listener)
    return 0


def listen(settings: ServerSettings) -> socket.socket:
    """Return a listening socket; raises OSError when its address is taken, or not there."""
    family = socket.AF_INET6 if ":" in settings.bind_address else socket.AF_INET
    return socket.create_server((settings.bind_address, settings.port), family=family, backlog=_BACKLOG)


def config(settings: ServerSettings, app: ASGIApp) -> Config:
    """Return uvicorn's configuration for a service, which is given its listening socket."""
    from uvicorn import Config

    return Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=settings.graceful_timeout,
        # The edge tells who asked; the application reads it.
        proxy_headers=False,
        server_header=False,
        # The logs are configured already, and each request is logged by the application, with its id.
        log_config=None,
        access_log=False,
    )


def _leave(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)
