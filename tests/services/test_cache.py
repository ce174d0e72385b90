"""The cache: hits, misses, and what happens while Redis is away."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

import services.gateway.app
import services.product.app
from services.common.settings import ServerSettings
from services.gateway.settings import Settings as GatewaySettings
from services.product.cache import Cache, Outcome
from services.product.settings import CacheSettings
from tests.services import fakes

BACKOFF = 0.1
TIMEOUT = 0.1


def _cache(port: int, backoff: float = BACKOFF) -> Cache:
    return Cache(CacheSettings("127.0.0.1", port, TIMEOUT, backoff, 300))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken but on which nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


def _until(cache: Cache, outcome: Outcome) -> None:
    deadline = time.monotonic() + 5
    while cache.get("product_1")[0] is not outcome:
        assert time.monotonic() < deadline, f"the cache never said {outcome}"


def test_a_value_is_found_again_until_its_time_is_over() -> None:
    with fakes.redis_server() as server:
        cache = _cache(server.port)
        assert cache.get("product_1") == (Outcome.MISS, None)
        cache.put("product_1", {"id": 1})
        assert cache.get("product_1") == (Outcome.HIT, {"id": 1})
        assert server.expiry == {b"product_1": 300_000}  # milliseconds
        server.values[b"product_1"] = b"not json"
        assert cache.get("product_1") == (Outcome.MISS, None)
        cache.close()


def test_without_redis_only_one_request_in_a_while_asks_for_it(closed_port: int) -> None:
    cache = _cache(closed_port, backoff=60)
    assert cache.get("a") == (Outcome.BYPASS, None)
    started = time.monotonic()
    for _ in range(1000):
        assert cache.get("a") == (Outcome.BYPASS, None)
        cache.put("a", 1)
    assert not cache.alive()
    assert time.monotonic() - started < 1
    cache.close()


def test_a_silent_redis_costs_its_time_out_once() -> None:
    with fakes.redis_server() as server:
        server.silent = True
        cache = _cache(server.port, backoff=60)
        started = time.monotonic()
        assert [cache.get("a")[0] for _ in range(100)] == [Outcome.BYPASS] * 100
        assert TIMEOUT <= time.monotonic() - started < 5 * TIMEOUT
        cache.close()


def test_it_heals_by_itself() -> None:
    with fakes.redis_server() as server:
        port = server.port
        cache = _cache(port)
        cache.put("product_1", 1)
        assert cache.get("product_1") == (Outcome.HIT, 1)
    _until(cache, Outcome.BYPASS)
    with fakes.redis_server(port):
        _until(cache, Outcome.MISS)
        assert cache.alive()
        cache.close()


def test_products_come_without_redis_and_from_the_cache_without_database(closed_port: int) -> None:
    database = fakes.Database()
    without = services.product.app.build("product-1", database, _cache(closed_port)).test_client()
    response = without.get("/products")
    assert (response.status_code, response.headers["X-Cache"]) == (200, "bypass")
    health = without.get("/health")
    assert (health.status_code, health.get_json()["status"]) == (200, "degraded")
    with fakes.redis_server() as server:
        cache = _cache(server.port)
        client = services.product.app.build("product-1", database, cache).test_client()
        assert client.get("/products/1").headers["X-Cache"] == "miss"
        database.up = False
        cached = client.get("/products/1")
        assert (cached.status_code, cached.headers["X-Cache"]) == (200, "hit")
        assert client.get("/products/2").status_code == 503
        cache.close()


def test_a_shop_without_redis_bypasses_the_cache_and_is_well() -> None:
    client = services.product.app.build("product-1", fakes.Database(), None).test_client()
    assert client.get("/products/1").headers["X-Cache"] == "bypass"
    assert client.get("/health").get_json()["dependencies"] == {"database": "ok"}


def test_the_gateway_in_front_of_a_degraded_product_says_so(closed_port: int) -> None:
    product = services.product.app.build("product-1", fakes.Database(), _cache(closed_port))
    with fakes.http_server(product) as port:
        url = f"http://127.0.0.1:{port}"
        server = ServerSettings("127.0.0.1", 3000, "gateway-1", 8, 10, "info")
        settings = GatewaySettings(server, url, url, 0.5, 2.0, 3.0, 1.0, 1.0)
        response = services.gateway.app.create_app(settings).test_client().get("/health")
    assert (response.status_code, response.get_json()["status"]) == (200, "degraded")
