"""A pool of PostgreSQL connections that starts without the database, and heals when it comes back."""

from __future__ import annotations

import atexit
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool

from services.common.errors import UnavailableError
from services.common.settings import DatabaseSettings

_log = logging.getLogger("services.database")

#: The dependency's name in answers.
NAME = "database"

Connection = psycopg.Connection[TupleRow]


class Database:
    """Connections to one database. Making one opens no connection yet: that happens in the background."""

    def __init__(self, settings: DatabaseSettings) -> None:
        milliseconds = round(settings.statement * 1000)
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            kwargs={
                "host": settings.host,
                "port": settings.port,
                "dbname": settings.name,
                "user": settings.user,
                "password": settings.password,
                "connect_timeout": math.ceil(settings.connect),
                # A server that vanished without a word must not hold a thread, nor a client that vanished a row.
                "tcp_user_timeout": milliseconds,
                "options": f"-c statement_timeout={milliseconds} -c idle_in_transaction_session_timeout={milliseconds}",
            },
            min_size=1,
            max_size=settings.pool_size,
            timeout=settings.wait,
            # The pool waits ever longer between attempts until this time is over, then starts afresh with the next
            # request: a short one means that it heals soon after a long outage.
            reconnect_timeout=settings.wait,
            num_workers=2,
            check=self._check,
            open=False,
        )
        self._pool.open(wait=False)
        # Left to the end of the interpreter, the pool's threads could not be joined any more (from Python 3.13 on), and
        # a service would take many seconds to stop.
        atexit.register(self.close)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection; its transaction is committed at the end, or rolled back if an exception passes.

        Raises UnavailableError when the database does not answer, also in the middle of the work.
        """
        try:
            with self._pool.connection() as connection:
                yield connection
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            # psycopg_pool.PoolTimeout is an OperationalError too.
            _log.warning("the database is not available", extra={"reason": str(error).strip()})
            raise UnavailableError(NAME, "it does not answer") from error

    def alive(self, probe: LiteralString) -> bool:
        """Whether the statement ``probe`` succeeds now."""
        try:
            with self.connection() as connection:
                connection.execute(probe)
        except UnavailableError:
            return False
        except psycopg.ProgrammingError as error:  # no such table yet, or no right to read it
            _log.warning("the database is not as expected", extra={"reason": str(error).strip()})
            return False
        return True

    def close(self) -> None:
        """Close all connections."""
        atexit.unregister(self.close)
        self._pool.close()

    def _check(self, connection: Connection) -> None:
        try:
            ConnectionPool.check_connection(connection)
        except psycopg.OperationalError:
            # If one connection is dead the others are as old. Without this each would cost a request its patience.
            self._pool.drain()
            raise
