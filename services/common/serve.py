"""Starts a service under uvicorn: one process with one event loop, stopped gracefully by SIGTERM."""

from __future__ import annotations

import os
import signal
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

#: Exit code for wrong settings.
USAGE = 2


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
    """Read the settings from the environment and serve until SIGTERM; return 2 if the settings are wrong."""
    try:
        settings = read(os.environ)
    except SettingsError as error:
        for mistake in error.mistakes:
            print(f"{service}: {mistake}", file=sys.stderr)
        return USAGE
    # uvicorn takes both over while it serves, and at the end sends itself the signal that it was stopped by.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    logs.configure(service, settings.server.replica, settings.server.level)
    from uvicorn import Server

    Server(config(settings.server, create_app(settings))).run()
    return 0


def config(settings: ServerSettings, app: ASGIApp) -> Config:
    """Return uvicorn's configuration for a service.

    On SIGTERM it closes its listening socket at once, so that clients go to another replica, and serves those who
    have connected.
    """
    from uvicorn import Config

    return Config(
        app,
        host=settings.bind_address,
        port=settings.port,
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
