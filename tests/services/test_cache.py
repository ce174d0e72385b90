"""The cache: hits, misses, and what happens while Redis is away."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

import services.gateway.app
import services.product.app
from services.gateway.settings import Settings as GatewaySettings
from services.product.cache import Cache, Outcome
from services.product.settings import CacheSettings
from tests.services import fakes

BACKOFF = 0.1
TIMEOUT = 0.1


def _cache(port: int, backoff: float = BACKOFF, timeout: float = TIMEOUT) -> Cache:
    return Cache(CacheSettings("127.0.0.1", port, timeout, backoff, 300))


@asynccontextmanager
async def _opened(port: int, backoff: float = BACKOFF, timeout: float = TIMEOUT) -> AsyncIterator[Cache]:
    cache = _cache(port, backoff, timeout)
    try:
        yield cache
    finally:
        await cache.close()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken but on which nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


async def _until(cache: Cache, outcome: Outcome) -> None:
    deadline = time.monotonic() + 5
    while (await cache.get("product_1"))[0] is not outcome:
        assert time.monotonic() < deadline, f"the cache never said {outcome}"


def test_a_value_is_found_again_until_its_time_is_over() -> None:
    async def find(server: fakes.RedisServer) -> None:
        async with _opened(server.port) as cache:
            assert await cache.get("product_1") == (Outcome.MISS, None)
            await cache.put("product_1", {"id": 1})
            assert await cache.get("product_1") == (Outcome.HIT, {"id": 1})
            assert server.expiry == {b"product_1": 300_000}  # milliseconds
            server.values[b"product_1"] = b"not json"
            assert await cache.get("product_1") == (Outcome.MISS, None)

    with fakes.redis_server() as server:
        asyncio.run(find(server))


def test_without_redis_only_one_request_in_a_while_asks_for_it(closed_port: int) -> None:
    async def ask() -> None:
        async with _opened(closed_port, backoff=60) as cache:
            assert await cache.get("a") == (Outcome.BYPASS, None)
            started = time.monotonic()
            for _ in range(1000):
                assert await cache.get("a") == (Outcome.BYPASS, None)
                await cache.put("a", 1)
            assert not await cache.alive()
            assert time.monotonic() - started < 1

    asyncio.run(ask())


def test_a_silent_redis_costs_its_time_out_once() -> None:
    async def ask(server: fakes.RedisServer) -> None:
        async with _opened(server.port, backoff=60) as cache:
            started = time.monotonic()
            assert [(await cache.get("a"))[0] for _ in range(100)] == [Outcome.BYPASS] * 100
            assert TIMEOUT <= time.monotonic() - started < 5 * TIMEOUT

    with fakes.redis_server() as server:
        server.silent = True
        asyncio.run(ask(server))


def test_more_requests_than_connections_all_find_what_is_cached() -> None:
    async def ask(server: fakes.RedisServer) -> None:
        # Nobody is to be late here, however much the machine has to do besides.
        async with _opened(server.port, backoff=60, timeout=60) as cache:
            await cache.put("a", 1)
            found = await asyncio.gather(*(cache.get("a") for _ in range(200)))
            assert found == [(Outcome.HIT, 1)] * 200
            assert len(server.connections) <= 16

    with fakes.redis_server() as server:
        asyncio.run(ask(server))


def test_it_heals_by_itself() -> None:
    async def heal() -> None:
        with fakes.redis_server() as server:
            cache = _cache(server.port)
            await cache.put("product_1", 1)
            assert await cache.get("product_1") == (Outcome.HIT, 1)
        await _until(cache, Outcome.BYPASS)
        with fakes.redis_server(server.port):
            await _until(cache, Outcome.MISS)
            assert await cache.alive()
            await cache.close()

    asyncio.run(heal())


def test_products_come_without_redis_and_from_the_cache_without_database(closed_port: int) -> None:
    database = fakes.Database()
    with fakes.client(services.product.app.build("product-1", database, _cache(closed_port))) as without:
        response = without.get("/products")
        assert (response.status_code, response.headers["X-Cache"]) == (200, "bypass")
        health = without.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
    with (
        fakes.redis_server() as server,
        fakes.client(services.product.app.build("product-1", database, _cache(server.port))) as client,
    ):
        assert client.get("/products/1").headers["X-Cache"] == "miss"
        database.up = False
        cached = client.get("/products/1")
        assert (cached.status_code, cached.headers["X-Cache"]) == (200, "hit")
        assert client.get("/products/2").status_code == 503


def test_a_shop_without_redis_bypasses_the_cache_and_is_well() -> None:
    with fakes.client(services.product.app.build("product-1", fakes.Database(), None)) as client:
        assert client.get("/products/1").headers["X-Cache"] == "bypass"
        assert client.get("/health").json()["dependencies"] == {"database": "ok"}


def test_the_gateway_in_front_of_a_degraded_product_says_so(closed_port: int) -> None:
    product = services.product.app.build("product-1", fakes.Database(), _cache(closed_port))
    with fakes.http_server(product) as port:
        url = f"http://127.0.0.1:{port}"
        settings = GatewaySettings(fakes.settings(), url, url, 0.5, 2.0, 3.0, 1.0, 1.0)
        with fakes.client(services.gateway.app.create_app(settings)) as gateway:
            response = gateway.get("/health")
    assert (response.status_code, response.json()["status"]) == (200, "degraded")
