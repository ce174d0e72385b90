"""A customer of the shop: HTTP by `requests`, from the machine outside of the lab."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from requests.exceptions import RequestException, Timeout

from acceptance.probe import ANSWER
from acceptance.traffic import Attempt, Outcome
from underlay import libc
from underlay.hosts.base import Outside
from underlay.topology import Plan

#: How many may ask at the same time.
_AT_ONCE = 8
_OUTCOMES = {
    errno.ECONNREFUSED: "refused",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ETIMEDOUT: "timeout",
}


class Customer:
    """Asks from threads that are in the network of the outside: a network namespace is a thread's own (setns(2))."""

    def __init__(self, outside: Outside, plan: Plan) -> None:
        self._outside = outside
        self._connect = plan.timeouts.connect
        self._pool: ThreadPoolExecutor | None = None

    def ask(self, wanted: Sequence[Attempt]) -> tuple[Outcome, ...]:
        """Send requests one after the other, each in a connection of its own, and follow no redirect."""
        return self._threads().submit(lambda: tuple(self._one(item) for item in wanted)).result()

    def one(self, wanted: Attempt) -> Outcome:
        """Send one request."""
        return self.ask([wanted])[0]

    def hesitate(self, wanted: Attempt, meanwhile: Callable[[], None]) -> Outcome:
        """Send a request whose body comes in two parts, with something done after the first."""

        def parts() -> Iterator[bytes]:
            body = wanted.body.encode()
            yield body[: len(body) // 2]
            meanwhile()
            yield body[len(body) // 2 :]

        return self._threads().submit(self._one, wanted, parts()).result()

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_AT_ONCE, "customer", _enter, (self._outside.network,))
        return self._pool

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _one(self, item: Attempt, body_parts: Iterator[bytes] | None = None) -> Outcome:
        started = time.monotonic()
        outcome, error, status, headers, body = "connected", "", 0, {}, ""
        with requests.Session() as session:
            session.trust_env = False  # no proxy knows the way
            try:
                answer = session.request(
                    item.method,
                    f"http://{item.address}:{item.port}{item.path}",
                    data=body_parts or item.body.encode() or None,
                    headers={**item.headers, "Connection": "close"},
                    timeout=(self._connect, self._connect * ANSWER),
                    allow_redirects=False,
                )
                status, body = answer.status_code, answer.content.decode(errors="replace")
                headers = {name.lower(): value for name, value in answer.headers.items()}
            except Timeout:
                outcome, error = "timeout", "ETIMEDOUT"
            except RequestException as problem:
                code = next(_codes(problem), None)
                outcome = "error" if code is None else _OUTCOMES.get(code, "error")
                error = errno.errorcode.get(code, "") if code else f"{type(problem).__name__}: {problem}"
        seconds = time.monotonic() - started
        return Outcome(self._outside.name, item, outcome, error, "", "", seconds, 0, status, headers, body)


def _enter(network: Path | None) -> None:
    if network is None:
        return
    there = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.setns(there, libc.CLONE_NEWNET)
    finally:
        os.close(there)


def _codes(error: BaseException) -> Iterator[int]:
    """Yield what the kernel has said, out of what libraries have made of it."""
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, OSError) and found.errno is not None:
            yield found.errno
        linked = (found.__cause__, found.__context__, getattr(found, "reason", None), *found.args)
        waiting += [item for item in linked if isinstance(item, BaseException)]
