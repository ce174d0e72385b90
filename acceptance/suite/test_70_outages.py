"""What the shop does while its cache or its database is away, and that it heals by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from acceptance.suite.shop import NO_CACHE, Shop, assert_nothing_shows
from acceptance.suite.stage import Stage
from underlay.topology import Program, Service

_LIST = "/api/products"


@contextmanager
def _away(stage: Stage, services: Sequence[Service]) -> Iterator[None]:
    names = {service.name for service in services}
    with ExitStack() as stack:
        for seat in stage.seats():
            if seat.service.name in names:
                stack.callback(stage.start, seat)
                stage.stop(seat)
        yield


def test_without_cache_products_come_from_the_database(stage: Stage, shop: Shop) -> None:
    caches = shop.caches()
    if not caches:
        pytest.skip(NO_CACHE)
    assert shop.wait_for(shop.get(_LIST), 200, ("x-cache", "hit"))
    with _away(stage, caches):
        answers = shop.ask([shop.get(_LIST)] * 4)
        seen = [(answer.status, answer.headers.get("x-cache")) for answer in answers]
        assert set(seen) == {(200, "bypass")}, f"expected: products past the cache; seen: {seen}"
    kept = shop.cached_for()
    assert not kept, f"expected: a cache that keeps nothing when it stops; seen: {sorted(kept)}"
    healed = shop.wait_for(shop.get(_LIST), 200, ("x-cache", "hit"))
    assert healed.data == answers[0].data, f"expected: {answers[0].body}; seen: {healed.body}"


def test_without_database_nothing_is_half_written(stage: Stage, shop: Shop) -> None:
    databases = [service for service in stage.plan.services if service.program is Program.POSTGRES]
    product = int(shop.query("SELECT id FROM products ORDER BY stock DESC LIMIT 1"))
    question = f"SELECT count(*), max(id), (SELECT stock FROM products WHERE id = {product}) FROM orders"  # noqa: S608
    before = shop.query(question)
    cached = shop.wait_for(shop.get(_LIST), 200, ("x-cache", "hit")) if shop.caches() else None
    began = time.monotonic()
    with _away(stage, databases):
        seconds = time.monotonic() - began
        refused = shop.one(shop.order(product))
        assert refused.status == 503, f"expected: 503; seen: {refused} {refused.body}"
        assert_nothing_shows("no database", refused)
        if cached:
            still = shop.one(shop.get(_LIST))
            seen = (still.status, still.headers.get("x-cache"), still.data)
            assert seen == (200, "hit", cached.data), f"expected: products from the cache; seen: {seen}"
    # It ends its sessions: one that waited for them would be killed after this time, and have to recover.
    limit = stage.plan.timeouts.ready / 4
    assert seconds < limit, f"expected: the database stops in less than {limit:g} s; seen: {seconds:.1f} s"
    taken = shop.wait_for(shop.order(product), 201)
    after = shop.query(question)
    count, last, stock = (int(word or 0) for word in before.split("|"))
    order = taken.data
    assert isinstance(order, dict), f"expected: an object; seen: {order}"
    wanted = f"{count + 1}|{order['id']}|{stock - 1}"
    assert after == wanted, f"expected: just the one order after {last}, {wanted}; seen: {after}"
