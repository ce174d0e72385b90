"""A pool of PostgreSQL connections that starts without the database, and heals when it comes back."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import LiteralString

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from services.common.errors import UnavailableError
from services.common.settings import DatabaseSettings

_log = logging.getLogger("services.database")

#: The dependency's name in answers.
NAME = "database"

#: After so many times a statement's time this side gives it up: the server has had its time to say so itself.
GRACE = 1.25
#: A commit may take so many times a statement's time, longer than a gateway waits: cut short, nobody would know of it.
_COMMIT = 2

#: Errors of a database that is away; PoolTimeout is an OperationalError too. The last one meets a service that was
#: frozen in the middle of its work.
_LOST = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.IdleInTransactionSessionTimeout)

_AWAY = "it does not answer"
_UNKNOWN = f"{_AWAY}; whether what was asked for was done is not known"

Connection = psycopg.AsyncConnection[TupleRow]


class Database:
    """Connections to one database. It must be opened in the event loop that uses it."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._turns = asyncio.Semaphore(settings.pool_size)
        self._answered = 0
        milliseconds = round(settings.statement * 1000)
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            kwargs={
                "host": settings.host,
                "port": settings.port,
                "dbname": settings.name,
                "user": settings.user,
                "password": settings.password,
                "connect_timeout": math.ceil(settings.connect),
                # A server that vanished without a word must not hold a request, nor a client that vanished a row.
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

    async def open(self) -> None:
        """Start to connect, in the background."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection; its transaction is committed at the end, or rolled back if an exception passes.

        Raises UnavailableError when the database does not answer, also in the middle of the work; if that was at its
        very end, the error says that nobody knows whether the work was done.
        """
        watch: asyncio.TimerHandle | None = None
        reason, answered = _AWAY, True
        await self._turn()
        try:
            async with self._pool.connection() as connection:
                # The server watches its statements (statement_timeout); a server that is frozen watches nothing.
                watch = _cut_after(self._settings.statement * GRACE, connection)
                yield connection
                watch.cancel()
                watch = _cut_after(self._settings.statement * _COMMIT, connection)
                reason = _UNKNOWN
        except _LOST as error:
            answered = isinstance(error, psycopg.errors.QueryCanceled)
            _log.warning("the database is not available", extra={"reason": str(error).strip()})
            raise UnavailableError(NAME, reason) from error
        finally:
            if watch is not None:
                watch.cancel()
            self._answered += answered
            self._turns.release()

    async def _turn(self) -> None:
        """Wait for one of the pool's connections to be free, as long as the database answers somebody.

        Many who wait for a database that works are served one after the other; UnavailableError when it has not
        answered anybody for as long as one is to wait for it.
        """
        if not self._turns.locked():
            await self._turns.acquire()
            return
        turn = asyncio.ensure_future(self._turns.acquire())
        try:
            answered = self._answered
            while not (await asyncio.wait((turn,), timeout=self._settings.wait))[0]:
                if self._answered == answered:
                    raise UnavailableError(NAME, _AWAY)
                answered = self._answered
        except BaseException:
            if not turn.cancel() and not turn.cancelled():
                self._turns.release()
            raise

    async def alive(self, probe: LiteralString) -> bool:
        """Whether the statement ``probe`` succeeds now."""
        try:
            async with self.connection() as connection:
                await connection.execute(probe)
        except UnavailableError:
            return False
        except psycopg.ProgrammingError as error:  # no such table yet, or no right to read it
            _log.warning("the database is not as expected", extra={"reason": str(error).strip()})
            return False
        return True

    async def _check(self, connection: Connection) -> None:
        watch = _cut_after(self._settings.wait, connection)
        try:
            await AsyncConnectionPool.check_connection(connection)
        except psycopg.OperationalError:
            # If one connection is dead the others are as old. Without this each would cost a request its patience.
            await self._pool.drain()
            raise
        finally:
            watch.cancel()


def _cut_after(seconds: float, connection: Connection) -> asyncio.TimerHandle:
    """Cut a connection when its time is over, unless the timer is cancelled before.

    Whoever waits on it then sees a lost connection. To cancel the waiting task instead would make psycopg ask the
    server to cancel its statement, and wait for a server that does not answer.
    """
    return asyncio.get_running_loop().call_later(seconds, _cut, connection)


def _cut(connection: Connection) -> None:
    if connection.closed:
        return
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as handle:
        handle.shutdown(socket.SHUT_RDWR)
