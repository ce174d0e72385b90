"""The cache in Redis. Without Redis everything still works, only slower: no error leaves this module."""

from __future__ import annotations

import json
import logging
import threading
import time
from enum import StrEnum

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.product.settings import CacheSettings

_log = logging.getLogger("services.cache")


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
        self._redis = Redis(
            host=settings.host,
            port=settings.port,
            socket_connect_timeout=settings.timeout,
            socket_timeout=settings.timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,  # saves the questions that the client asks on each new connection to learn more
            driver_info=None,
        )
        self._lock = threading.Lock()
        self._away_until: float | None = None

    def get(self, key: str) -> tuple[Outcome, object]:
        """Return the outcome and, with HIT, the value."""
        if not self._may_try():
            return Outcome.BYPASS, None
        try:
            found = self._redis.get(key)
        except RedisError as error:
            self._failed(error)
            return Outcome.BYPASS, None
        self._worked()
        if not isinstance(found, bytes):
            return Outcome.MISS, None
        try:
            return Outcome.HIT, json.loads(found)
        except ValueError:  # somebody else's value: it will be written over
            return Outcome.MISS, None

    def put(self, key: str, value: object) -> None:
        """Keep a value for the settings' ``ttl``."""
        if not self._may_try():
            return
        try:
            self._redis.set(key, json.dumps(value, separators=(",", ":")), px=max(1, round(self._settings.ttl * 1000)))
        except RedisError as error:
            self._failed(error)
        else:
            self._worked()

    def alive(self) -> bool:
        """Whether Redis answers; False without asking while it is left alone."""
        if not self._may_try():
            return False
        try:
            self._redis.ping()
        except RedisError as error:
            self._failed(error)
            return False
        self._worked()
        return True

    def close(self) -> None:
        """Close all connections."""
        self._redis.close()

    def _may_try(self) -> bool:
        now = time.monotonic()
        with self._lock:
            if self._away_until is None:
                return True
            if now < self._away_until:
                return False
            self._away_until = now + self._settings.backoff  # one request finds out; the others go on without
            return True

    def _failed(self, error: RedisError) -> None:
        with self._lock:
            news = self._away_until is None
            self._away_until = time.monotonic() + self._settings.backoff
        if news:
            _log.warning("Redis is not available; going on without cache", extra={"reason": str(error)})

    def _worked(self) -> None:
        with self._lock:
            news = self._away_until is not None
            self._away_until = None
        if news:
            _log.info("Redis is available again")
