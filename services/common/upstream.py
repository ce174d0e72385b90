"""The client for another service: all addresses of its name, in turn, with pooled connections.

aiohttp is given addresses and not the name, and says whether a failure came before the request was sent: only then
may an order be sent again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from urllib.parse import urlsplit

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientPayloadError,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    TCPConnector,
    TraceConfig,
    TraceRequestHeadersSentParams,
)
from yarl import URL

from services.common.errors import UnavailableError

_log = logging.getLogger("services.upstream")

#: What aiohttp would say of its own accord, and a relay must not.
_UNASKED = ("Accept-Encoding", "Content-Type", "User-Agent")


@dataclass(frozen=True, slots=True)
class UpstreamTimeouts:
    """In seconds. ``connect`` and ``read`` are for one attempt; ``total`` for all attempts of one request.

    ``resolve``: how long a name's addresses are kept; ``avoid``: how long an address that failed is tried last.
    """

    connect: float
    read: float
    total: float
    resolve: float
    avoid: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What an upstream answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Lookup = Callable[[str, int], Awaitable[tuple[str, ...]]]


class Resolver:
    """All addresses of a name, asked for again at most once in ``keep`` seconds.

    When the name service fails, or has not answered within ``patience`` seconds, the addresses known before stay in
    use.
    """

    def __init__(self, host: str, port: int, keep: float, patience: float, lookup: Lookup) -> None:
        self._host = host
        self._port = port
        self._keep = keep
        self._patience = patience
        self._lookup = lookup
        self._known: tuple[str, ...] = ()
        self._until = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def addresses(self) -> tuple[str, ...]:
        """Return the addresses, sorted so that turns do not depend on the order of a DNS answer; may be empty."""
        if time.monotonic() < self._until:
            return self._known
        # While one request asks, the others go on with what is known, if anything is.
        if self._asking is None:
            self._asking = asyncio.create_task(self._refresh())
            await asyncio.wait((self._asking,), timeout=self._patience)
        elif not self._known:
            await asyncio.wait((self._asking,), timeout=self._patience)
        return self._known

    async def _refresh(self) -> None:
        try:
            found = await self._lookup(self._host, self._port)
        except (OSError, UnicodeError) as error:  # the latter from names that no DNS can hold
            _log.warning("a name does not resolve", extra={"name_asked": self._host, "reason": str(error)})
            found = ()
        finally:
            self._asking = None
        self._known = found or self._known
        self._until = time.monotonic() + self._keep


async def lookup(host: str, port: int) -> tuple[str, ...]:
    """Return all addresses of a name by getaddrinfo, sorted; raises OSError when there are none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(sorted({str(entry[4][0]) for entry in found}))


class Upstream:
    """One service behind a name. It must be opened in the event loop that uses it."""

    def __init__(self, name: str, url: str, timeouts: UpstreamTimeouts, lookup: Lookup = lookup) -> None:
        parts = urlsplit(url)
        if parts.hostname is None or parts.port is None:
            raise ValueError(f"expected http://NAME:PORT, seen {url!r}")
        self.name = name
        self._port = parts.port
        self._host = parts.netloc
        self._timeouts = timeouts
        self._resolver = Resolver(parts.hostname, parts.port, timeouts.resolve, timeouts.connect, lookup)
        self._sessions: dict[str, ClientSession] = {}
        self._turns = itertools.count()
        self._health_turns = itertools.count()
        self._failed: dict[str, float] = {}

    async def open(self) -> None:
        """Make ready; connections are made when they are needed."""
        # Orders never ride on an idle connection: if the other side closes it at that moment, nobody can tell
        # whether the order was taken. Their connections are used once.
        for method, once in (("GET", False), ("POST", True)):
            self._sessions[method] = ClientSession(
                connector=TCPConnector(limit=0, force_close=once),
                cookie_jar=DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=_UNASKED,
                trace_configs=[_telling_when_sent()] if once else None,
            )

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()

    async def get(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Fetch ``path`` from the replica whose turn it is; if it fails, from the next.

        Raises UnavailableError when none answers.
        """
        return await self._ask("GET", path, headers, None, self._turns)

    async def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send ``body`` to the replica whose turn it is; to the next only if no connection could be made.

        Raises UnavailableError when none answers, or when a connection broke so that the outcome is not known.
        """
        return await self._ask("POST", path, headers, body, self._turns)

    async def healthy(self, path: str) -> Answer | None:
        """Return one replica's answer to a health request (in turns of their own), or None if none answers."""
        try:
            return await self._ask("GET", path, {}, None, self._health_turns)
        except UnavailableError:
            return None

    async def _ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, turns: itertools.count[int]
    ) -> Answer:
        deadline = time.monotonic() + self._timeouts.total
        waiting = deque(await self._in_turn(next(turns)))
        reason = "no attempt was made in time" if waiting else "its name does not resolve"
        second_chance = method == "GET"
        while waiting and (left := deadline - time.monotonic()) > 0:
            address = waiting.popleft()
            sent: list[str] = []
            try:
                answer = await self._send(method, address, path, headers, body, left, sent)
            except (ClientConnectorError, ConnectionTimeoutError) as error:
                reason = "no connection can be made"
                self._note(address, error)
            except (ClientError, TimeoutError) as error:
                if method != "GET" and not sent:
                    reason = "no connection can be made"
                    self._note(address, error)
                    continue
                reason = "the connection broke or the answer took too long"
                if method != "GET":
                    self._note(address, error)
                    reason += "; whether the order was taken is not known"
                    break
                if isinstance(error, ClientPayloadError) and second_chance:
                    second_chance = False
                    waiting.appendleft(address)
                else:
                    self._note(address, error)
            else:
                self._failed.pop(address, None)
                return answer
        raise UnavailableError(self.name, reason)

    async def _in_turn(self, turn: int) -> list[str]:
        addresses = await self._resolver.addresses()
        if not addresses:
            return []
        start = turn % len(addresses)
        order = [*addresses[start:], *addresses[:start]]
        now = time.monotonic()
        return sorted(order, key=lambda address: self._failed.get(address, 0.0) > now)  # sorted() keeps the turns

    def _note(self, address: str, error: Exception) -> None:
        self._failed[address] = time.monotonic() + self._timeouts.avoid
        _log.warning(
            "an upstream replica failed",
            extra={"upstream": self.name, "address": address, "reason": f"{type(error).__name__}: {error}"},
        )

    async def _send(
        self,
        method: str,
        address: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        left: float,
        sent: list[str],
    ) -> Answer:
        """Ask one address once; ``sent`` gets an entry when a POST has left.

        A GET whose connection broke is tried by aiohttp once more. Most likely that was an idle connection that the
        replica had closed (RFC 9110, 9.2.2: idempotent methods).
        """
        timeouts = ClientTimeout(
            total=left,
            sock_connect=self._timeouts.connect,
            sock_read=self._timeouts.read,
            ceil_threshold=math.inf,  # by default times above 5 s end with a whole second of the loop's clock
        )
        async with self._sessions[method].request(
            method,
            URL.build(scheme="http", host=address, port=self._port, path=path, encoded=True),
            data=body,
            headers={**headers, "Host": self._host},
            timeout=timeouts,
            allow_redirects=False,
            trace_request_ctx=sent,
        ) as response:
            return Answer(response.status, response.headers, await response.read())


def _telling_when_sent() -> TraceConfig:
    """Return what adds an entry to a request's ``trace_request_ctx`` before the first byte of it is sent."""

    async def tell(_session: ClientSession, context: SimpleNamespace, what: TraceRequestHeadersSentParams) -> None:
        context.trace_request_ctx.append(what.method)

    config = TraceConfig()
    config.on_request_headers_sent.append(tell)
    return config
