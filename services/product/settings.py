"""Settings of the product service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.common.settings import DatabaseSettings, Reader, ServerSettings


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """REDIS_HOST, REDIS_PORT and times in seconds.

    ``timeout``: for a connection and for an answer; ``backoff``: how long Redis is left alone after a failure;
    ``ttl``: how long a product stays cached.
    """

    host: str
    port: int
    timeout: float
    backoff: float
    ttl: float

    @classmethod
    def read(cls, reader: Reader) -> CacheSettings:
        """Read the variables REDIS_* and CACHE_TTL."""
        return cls(
            host=reader.text("REDIS_HOST"),
            port=reader.port("REDIS_PORT"),
            timeout=reader.seconds("REDIS_TIMEOUT", 0.25),
            backoff=reader.seconds("REDIS_BACKOFF", 2),
            ttl=reader.seconds("CACHE_TTL", 300),
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen, the database, and the cache: None if neither REDIS_HOST nor REDIS_PORT is set."""

    server: ServerSettings
    database: DatabaseSettings
    cache: CacheSettings | None

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings; raise SettingsError with all mistakes."""
        reader = Reader(environment)
        settings = cls(
            server=ServerSettings.read(reader),
            database=DatabaseSettings.read(reader),
            cache=CacheSettings.read(reader) if {"REDIS_HOST", "REDIS_PORT"} & environment.keys() else None,
        )
        reader.finish()
        return settings
