"""Gateways that hang and a database that was away for long, on the real nginx and PostgreSQL."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack

import pytest
import requests

from tests.services import real
from tests.services.real import Shop, until

#: Seconds for which the database is away, and in which it is found again: after so long the pool would wait for longer.
_LONG, _AT_ONCE = 4.0, 1.5


def _get(shop: Shop, name: str, path: str) -> requests.Response:
    return requests.get(shop.url(name, path), timeout=5)


def _order(shop: Shop) -> int:
    wanted = {"customer_id": 7, "product_id": 2, "quantity": 1}
    return requests.post(shop.url("edge", "/api/orders"), json=wanted, timeout=10).status_code


def test_a_gateway_that_hangs_is_met_once_and_then_left_alone(shop: Shop) -> None:
    with ExitStack() as stack:
        stack.callback(shop.freeze("gateway-1"))
        seconds = [_get(shop, "hasty", "/api/products").elapsed.total_seconds() for _ in range(4)]
    assert [seen for seen in seconds if seen >= real.HASTY.edge] == [pytest.approx(real.HASTY.edge, abs=0.5)], seconds


def test_gateways_that_all_hang_are_told_of(shop: Shop) -> None:
    def in_turn() -> bool:  # one that is known to hang is not asked
        return len({_get(shop, "hasty", "/api/products").headers["X-Served-By"] for _ in range(2)}) == 2

    until("both are asked", in_turn)
    with ExitStack() as stack:
        for name in ("gateway-1", "gateway-2"):
            stack.callback(shop.freeze(name))
        answer = _get(shop, "hasty", "/api/products")
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "gateway_timeout")
    assert answer.elapsed.total_seconds() == pytest.approx(2 * real.HASTY.edge, abs=0.5)


def test_a_database_that_was_away_for_long_is_found_at_once(shop: Shop) -> None:
    """The pool waits ever longer between its attempts, if it is let."""
    shop.stop("postgres", signal.SIGINT)
    started = time.monotonic()
    until("it has been away for long", lambda: _order(shop) == 503 and time.monotonic() - started > _LONG)
    shop.start("postgres")
    assert until("orders are taken", lambda: _order(shop) == 201) < _AT_ONCE
