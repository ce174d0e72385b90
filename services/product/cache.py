"""The cache in Redis. Without Redis everything still works, only slower: no error leaves this module."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from enum import StrEnum

from redis import RedisError
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.product.settings import CacheSettings

_log = logging.getLogger("services.cache")

#: Connections at most: Redis answers one after the other.
_CONNECTIONS = 16


class Outcome(StrEnum):
    """What the cache had to say; the value of the header X-Cache."""

    HIT = "hit"
    MISS = "miss"
    BYPASS = "bypass"
    """Redis is not available, or is left alone because it was not a moment ago."""


class Cache:
    """JSON values in Redis. After a failure Redis is left alone for a while, so that requests do not wait for it."""

    def __init__(self, settings: CacheSettings) -> None:
        self._settings = settings
        self._redis = Redis.from_pool(
            ConnectionPool(
                host=settings.host,
                port=settings.port,
                max_connections=_CONNECTIONS,
                socket_connect_timeout=settings.timeout,
                socket_timeout=settings.timeout,
                retry=Retry(NoBackoff(), 0),
                protocol=2,  # saves the questions that the client asks on each new connection to learn more
                driver_info=None,
            )
        )
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._away_until: float | None = None

    async def get(self, key: str) -> tuple[Outcome, object]:
        """Return the outcome and, with HIT, the value."""
        if not self._may_try() or not await self._turn():
            return Outcome.BYPASS, None
        try:
            found = await self._redis.get(key)
        except RedisError as error:
            self._failed(error)
            return Outcome.BYPASS, None
        finally:
            self._turns.release()
        self._worked()
        if not isinstance(found, bytes):
            return Outcome.MISS, None
        try:
            return Outcome.HIT, json.loads(found)
        except (ValueError, RecursionError):  # somebody else's value: it will be written over
            return Outcome.MISS, None

    async def put(self, key: str, value: object) -> None:
        """Keep a value for the settings' ``ttl``."""
        if not self._may_try() or not await self._turn():
            return
        text = json.dumps(value, separators=(",", ":"))
        try:
            await self._redis.set(key, text, px=max(1, round(self._settings.ttl * 1000)))
        except RedisError as error:
            self._failed(error)
        else:
            self._worked()
        finally:
            self._turns.release()

    async def alive(self) -> bool:
        """Whether Redis answers; False without asking while it is left alone."""
        if not self._may_try() or not await self._turn():
            return False
        try:
            await self._redis.ping()
        except RedisError as error:
            self._failed(error)
            return False
        finally:
            self._turns.release()
        self._worked()
        return True

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def _turn(self) -> bool:
        """Wait for a connection to be free, but no longer than for an answer: many requests are no fault of Redis."""
        try:
            async with asyncio.timeout(self._settings.timeout if self._turns.locked() else None):
                return await self._turns.acquire()
        except TimeoutError:
            return False

    def _may_try(self) -> bool:
        now = time.monotonic()
        if self._away_until is None:
            return True
        if now < self._away_until:
            return False
        self._away_until = now + self._settings.backoff  # one request finds out; the others go on without
        return True

    def _failed(self, error: RedisError) -> None:
        if self._away_until is None:
            _log.warning("Redis is not available; going on without cache", extra={"reason": str(error)})
        self._away_until = time.monotonic() + self._settings.backoff

    def _worked(self) -> None:
        if self._away_until is not None:
            _log.info("Redis is available again")
        self._away_until = None
