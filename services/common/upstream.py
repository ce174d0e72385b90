"""The client for another service: all addresses of its name, in turn, with pooled connections.

This is urllib3 (the library under requests) and not requests itself, because urllib3 says whether a failure came
before the request was sent, and only then may an order be sent again.
"""

from __future__ import annotations

import itertools
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from urllib3 import PoolManager, Timeout
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProtocolError

from services.common.errors import UnavailableError

_log = logging.getLogger("services.upstream")


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


class Resolver:
    """All addresses of a name, asked for again at most once in ``keep`` seconds.

    When the name service fails, the addresses known before stay in use.
    """

    def __init__(self, host: str, port: int, keep: float, lookup: Callable[[str, int], tuple[str, ...]]) -> None:
        self._host = host
        self._port = port
        self._keep = keep
        self._lookup = lookup
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._known: tuple[str, ...] = ()
        self._until = 0.0

    def addresses(self) -> tuple[str, ...]:
        """Return the addresses, sorted so that turns do not depend on the order of a DNS answer; may be empty."""
        with self._lock:
            known, fresh = self._known, time.monotonic() < self._until
        # While one thread asks, the others go on with what is known, if anything is.
        if not fresh and self._asking.acquire(blocking=not known):
            try:
                self._refresh()
            finally:
                self._asking.release()
        with self._lock:
            return self._known

    def _refresh(self) -> None:
        with self._lock:
            if time.monotonic() < self._until:
                return  # another thread asked while this one waited
        try:
            found = self._lookup(self._host, self._port)
        except OSError as error:
            _log.warning("a name does not resolve", extra={"name_asked": self._host, "reason": str(error)})
            found = ()
        with self._lock:
            self._known = found or self._known
            self._until = time.monotonic() + self._keep


def lookup(host: str, port: int) -> tuple[str, ...]:
    """Return all addresses of a name by getaddrinfo, sorted; raises OSError when there are none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(sorted({str(entry[4][0]) for entry in found}))


class Upstream:
    """One service behind a name. Safe to use from many threads."""

    def __init__(
        self,
        name: str,
        url: str,
        timeouts: UpstreamTimeouts,
        connections: int,
        lookup: Callable[[str, int], tuple[str, ...]] = lookup,
    ) -> None:
        parts = urlsplit(url)
        if parts.hostname is None or parts.port is None:
            raise ValueError(f"expected http://NAME:PORT, seen {url!r}")
        self.name = name
        self._port = parts.port
        self._host = parts.netloc
        self._timeouts = timeouts
        self._resolver = Resolver(parts.hostname, parts.port, timeouts.resolve, lookup)
        self._pool = PoolManager(num_pools=64, maxsize=connections)
        # Orders never ride on an idle connection: if the other side closes it at that moment, nobody can tell
        # whether the order was taken. These connections are used once.
        self._once = PoolManager(num_pools=64, maxsize=connections)
        self._turns = itertools.count()
        self._health_turns = itertools.count()
        self._failed: dict[str, float] = {}

    def get(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Fetch ``path`` from the replica whose turn it is; if it fails, from the next.

        Raises UnavailableError when none answers.
        """
        return self._ask("GET", path, headers, None, self._turns)

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send ``body`` to the replica whose turn it is; to the next only if no connection could be made.

        Raises UnavailableError when none answers, or when a connection broke so that the outcome is not known.
        """
        return self._ask("POST", path, {**headers, "Connection": "close"}, body, self._turns)

    def healthy(self, path: str) -> Answer | None:
        """Return one replica's answer to a health request (in turns of their own), or None if none answers."""
        try:
            return self._ask("GET", path, {}, None, self._health_turns)
        except UnavailableError:
            return None

    def _ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, turns: itertools.count[int]
    ) -> Answer:
        deadline = time.monotonic() + self._timeouts.total
        waiting = deque(self._in_turn(next(turns)))
        second_chance = method == "GET"
        reason = "no attempt was made in time" if waiting else "its name does not resolve"
        while waiting and (left := deadline - time.monotonic()) > 0:
            address = waiting.popleft()
            try:
                answer = self._send(method, address, path, headers, body, left)
            except (NewConnectionError, ConnectTimeoutError) as error:
                reason = "no connection can be made"
                self._note(address, error)
            except HTTPError as error:
                reason = "the connection broke or the answer took too long"
                if method != "GET":
                    self._note(address, error)
                    reason += "; whether the order was taken is not known"
                    break
                if isinstance(error, ProtocolError) and second_chance:
                    # Most likely an idle connection that the replica had closed: one more try, on a new one.
                    second_chance = False
                    waiting.appendleft(address)
                else:
                    self._note(address, error)
            else:
                self._failed.pop(address, None)
                return answer
        raise UnavailableError(self.name, reason)

    def _in_turn(self, turn: int) -> list[str]:
        addresses = self._resolver.addresses()
        if not addresses:
            return []
        start = turn % len(addresses)
        order = [*addresses[start:], *addresses[:start]]
        now = time.monotonic()
        return sorted(order, key=lambda address: self._failed.get(address, 0.0) > now)  # sorted() keeps the turns

    def _note(self, address: str, error: HTTPError) -> None:
        self._failed[address] = time.monotonic() + self._timeouts.avoid
        _log.warning(
            "an upstream replica failed",
            extra={"upstream": self.name, "address": address, "reason": f"{type(error).__name__}: {error}"},
        )

    def _send(
        self, method: str, address: str, path: str, headers: Mapping[str, str], body: bytes | None, left: float
    ) -> Answer:
        host = f"[{address}]" if ":" in address else address
        response = (self._pool if method == "GET" else self._once).request(
            method,
            f"http://{host}:{self._port}{path}",
            body=body,
            headers={**headers, "Host": self._host},
            timeout=Timeout(total=left, connect=self._timeouts.connect, read=self._timeouts.read),
            retries=False,
            redirect=False,
        )
        return Answer(response.status, response.headers, response.data)
