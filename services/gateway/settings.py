"""Settings of the gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.common.settings import Reader, ServerSettings


@dataclass(frozen=True, slots=True)
class Settings:
    """PRODUCT_URL, ORDER_URL (``http://NAME:PORT``) and the time-outs UPSTREAM_*, in seconds.

    See :class:`services.common.upstream.UpstreamTimeouts` for what each of them means.
    """

    server: ServerSettings
    product_url: str
    order_url: str
    connect: float
    read_answer: float
    total: float
    resolve: float
    avoid: float

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings; raise SettingsError with all mistakes."""
        reader = Reader(environment)
        settings = cls(
            server=ServerSettings.read(reader),
            product_url=reader.url("PRODUCT_URL"),
            order_url=reader.url("ORDER_URL"),
            connect=reader.seconds("UPSTREAM_CONNECT_TIMEOUT"),
            # A service waits for its database and then says so: give it the time to.
            read_answer=reader.seconds("UPSTREAM_READ_TIMEOUT"),
            total=reader.seconds("UPSTREAM_TOTAL_TIMEOUT"),
            resolve=reader.seconds("UPSTREAM_RESOLVE_INTERVAL", 1),
            avoid=reader.seconds("UPSTREAM_BACKOFF", 2),
        )
        reader.finish()
        return settings
