"""Starts a service under gunicorn: one worker process with threads, stopped gracefully by SIGTERM."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from services.common import logs
from services.common.settings import ServerSettings, SettingsError

if TYPE_CHECKING:  # Flask is imported only in the worker
    from flask import Flask

#: Seconds that an idle connection is kept. Longer than its clients (nginx, urllib3) keep it, so that they close
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
    create_app: Callable[[_Settings], Flask],
) -> int:
    """Read the settings from the environment and serve until SIGTERM; return 2 if the settings are wrong."""
    try:
        settings = read(os.environ)
    except SettingsError as error:
        for mistake in error.mistakes:
            print(f"{service}: {mistake}", file=sys.stderr)
        return USAGE
    logs.configure(service, settings.server.replica, settings.server.level)
    _run(service, settings.server, lambda: create_app(settings))
    return 0


def options(service: str, settings: ServerSettings) -> dict[str, object]:
    """Return gunicorn's settings for a service."""
    host = f"[{settings.bind_address}]" if ":" in settings.bind_address else settings.bind_address
    return {
        "bind": f"{host}:{settings.port}",
        "proc_name": service,
        "workers": 1,
        "threads": settings.threads,
        "graceful_timeout": settings.graceful_timeout,
        "keepalive": _KEEP_ALIVE,
        # The worker's sign of life is a file; on a disk a slow write would look like a dead worker.
        "worker_tmp_dir": "/dev/shm",  # noqa: S108
        "control_socket_disable": True,
        "loglevel": settings.log_level,
    }


def _run(service: str, settings: ServerSettings, make: Callable[[], Flask]) -> None:
    # gunicorn carries no type information.
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
    from gunicorn.glogging import Logger  # type: ignore[import-untyped]
    from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

    class JsonLogger(Logger):  # type: ignore[misc]
        """Leaves gunicorn's messages to the logs that the service has configured."""

        def setup(self, cfg: object) -> None:
            self.cfg = cfg
            self.error_log.handlers = []
            self.error_log.propagate = True

    class Worker(ThreadWorker):  # type: ignore[misc]
        """Closes its listening socket as soon as it is told to stop, so that clients go to another replica.

        gunicorn's own keeps it open until the last request is answered; who connects meanwhile is never served.
        """

        def set_accept_enabled(self, enabled: bool) -> None:
            super().set_accept_enabled(enabled)
            if self.alive:
                return
            for listener in self.sockets:
                served = None
                while served != self.nr_conns:  # those who have connected already are served
                    served = self.nr_conns
                    self.accept(listener)
                listener.close()

    class Server(BaseApplication):  # type: ignore[misc]
        """Serves one application; it is made in the worker, whose threads (the pool's) must start there."""

        def load_config(self) -> None:
            for name, value in options(service, settings).items():
                self.cfg.set(name, value)
            self.cfg.set("logger_class", JsonLogger)
            self.cfg.set("worker_class", Worker)

        def load(self) -> Flask:
            return make()

    Server().run()
