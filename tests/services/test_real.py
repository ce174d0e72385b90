"""The shop on the real nginx, Redis and PostgreSQL, each of which is taken away and given back."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import LiteralString

import aiohttp
import psycopg
import pytest
import requests
from psycopg import sql

from provision.shop import database_script
from services.common.database import Database
from services.common.errors import UnavailableError
from services.common.settings import DatabaseSettings
from tests.services import contract, real
from tests.services.real import Shop, until

ORDER = {"customer_id": 7, "product_id": 2, "quantity": 1}
ORDERS = sql.SQL("SELECT count(*) FROM orders")
WAITING = sql.SQL("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
STOCK = sql.SQL("SELECT stock FROM products WHERE id = 2")


@pytest.fixture(autouse=True)
def healthy(shop: Shop) -> None:
    until("the shop is well", lambda: _get(shop, "gateway-1", "/health").json()["status"] == "ok")


def _get(shop: Shop, name: str, path: str, timeout: float = 5) -> requests.Response:
    return requests.get(shop.url(name, path), timeout=timeout)


def _order(shop: Shop, name: str = "edge", **changes: int) -> requests.Response:
    return requests.post(shop.url(name, "/api/orders"), json={**ORDER, **changes}, timeout=10)


def _checked(response: requests.Response, path: str, method: str) -> requests.Response:
    contract.check(path, method, response.status_code, response.headers, response.json())
    for header in ("X-Edge", "X-Client-Address", "X-Request-Id", "X-Served-By"):
        assert len(response.raw.headers.getlist(header)) == 1, f"{header} is not there once"
    return response


def test_an_order_goes_all_the_way(shop: Shop) -> None:
    before = shop.query(STOCK)[0][0]
    created = _checked(_order(shop, quantity=3), "/api/orders", "post")
    assert created.status_code == 201
    assert created.json()["total_price"] == pytest.approx(89.97)
    assert created.headers["X-Order-Replica"] == "order-1"
    found = _checked(_get(shop, "edge", created.headers["Location"]), "/api/orders/{order_id}", "get")
    assert found.json() == created.json()
    number = sql.Literal(created.json()["id"])
    rows = shop.query(sql.SQL("SELECT quantity, total_price::text FROM orders WHERE id = {}").format(number))
    assert rows == [(3, "89.97")]
    assert shop.query(STOCK) == [(before - 3,)]  # type: ignore[operator]


def test_products_come_from_the_cache_the_second_time(shop: Shop) -> None:
    _get(shop, "edge", "/api/products")
    again = _checked(_get(shop, "edge", "/api/products"), "/api/products", "get")
    assert again.headers["X-Cache"] == "hit"
    assert [(product["id"], product["name"], product["price"]) for product in again.json()["products"]] == [
        (1, "Laptop", 999.99),
        (2, "Mouse", 29.99),
        (3, "Keyboard", 79.99),
    ]
    _checked(_get(shop, "edge", "/api/products/99"), "/api/products/{product_id}", "get")


def test_the_edge_tells_who_asked_and_logs_it(shop: Shop) -> None:
    response = requests.get(
        shop.url("edge", "/api/products/1"),
        headers={"X-Request-Id": "trace-1", "X-Forwarded-For": "1.2.3.4"},
        timeout=5,
    )
    assert response.headers["X-Client-Address"] == "127.0.0.1"
    assert response.headers["X-Request-Id"] == "trace-1"
    for name in ("edge", response.headers["X-Served-By"], "product-1"):
        until(f"{name} has logged", lambda name=name: '"trace-1"' in shop.log(name))  # type: ignore[misc]
        line = next(line for line in shop.log(name).splitlines() if '"trace-1"' in line)
        logged = json.loads(line)
        assert logged.get("remote_addr", logged.get("client")) == "127.0.0.1"


def test_gateways_take_turns_exactly(shop: Shop) -> None:
    seen = Counter(_get(shop, "edge", "/api/products").headers["X-Served-By"] for _ in range(20))
    assert seen == {"gateway-1": 10, "gateway-2": 10}


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", "/nothing", {}, b"", 404),
        ("GET", "/api", {}, b"", 404),
        ("TRACE", "/api/products", {}, b"", 405),
        ("FOO", "/api/products", {}, b"", 405),
        ("FOO", "/api/orders", {}, b"", 405),
        ("POST", "/api/orders", {"Content-Type": "application/json"}, b" " * 16385, 413),
        ("GET", "/" + "x" * 9000, {}, b"", 414),
        ("GET", "/api/products", {"X-Long": "x" * 9000}, b"", 400),
        ("POST", "/health", {}, b"", 405),
        ("GET", "/health", {}, b"", 200),
    ],
)
def test_the_edge_itself_speaks_json(
    shop: Shop, method: str, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    response = requests.request(method, shop.url("edge", path), headers=headers, data=body, timeout=5)
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert (response.headers["X-Served-By"], response.headers["X-Edge"]) == ("edge", "edge")
    if path == "/health":
        contract.check("/health", "get", status, response.headers, response.json())
    else:
        assert set(response.json()["error"]) == {"code", "message", "details"}


@pytest.mark.parametrize("request_line", [b"GARBAGE", b"GET / HTTP/9.9", b"GET /%zz HTTP/1.1", b"GET / HTTP/1.1"])
def test_the_edge_answers_what_is_not_http_in_json(shop: Shop, request_line: bytes) -> None:
    with socket.create_connection(("127.0.0.1", shop.ports["edge"]), timeout=5) as client:
        client.sendall(request_line + b"\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert json.loads(answer.split(b"\r\n\r\n")[-1])["error"]["code"] in {"bad_request", "http_version_not_supported"}


def test_one_gateway_away_is_not_noticed_and_none_is_said(shop: Shop) -> None:
    shop.stop("gateway-1", signal.SIGKILL)
    until("its worker has noticed", lambda: not real.listening(shop.ports["gateway-1"]))
    assert {_get(shop, "edge", "/api/products").headers["X-Served-By"] for _ in range(6)} == {"gateway-2"}
    assert [_order(shop).status_code for _ in range(4)] == [201] * 4
    shop.stop("gateway-2", signal.SIGINT)  # at once, idle connections or not
    for _ in range(2):
        _checked(response := _get(shop, "edge", "/api/products"), "/api/products", "get")
        assert (response.status_code, response.headers["X-Served-By"]) == (502, "edge")
    shop.start("gateway-1")
    shop.start("gateway-2")
    until("the edge heals", lambda: _get(shop, "edge", "/api/products").status_code == 200)


def test_redis_is_killed_and_comes_back(shop: Shop) -> None:
    shop.stop("redis", signal.SIGKILL)
    for _ in range(20):
        response = _get(shop, "edge", "/api/products", timeout=1)
        assert (response.status_code, response.headers["X-Cache"]) == (200, "bypass")
    health = _get(shop, "product-1", "/health")
    assert (health.status_code, health.json()["dependencies"]["redis"]) == (200, "degraded")
    shop.start("redis")
    until("the cache is used again", lambda: _get(shop, "edge", "/api/products").headers["X-Cache"] == "hit")


def test_the_database_is_stopped_and_comes_back(shop: Shop) -> None:
    assert _get(shop, "edge", "/api/products/1").status_code == 200  # cached from here on
    orders, stock = shop.query(ORDERS), shop.query(STOCK)
    shop.stop("postgres", signal.SIGINT)
    cached = _get(shop, "edge", "/api/products/1")
    assert (cached.status_code, cached.headers["X-Cache"]) == (200, "hit")
    refused = _checked(_order(shop), "/api/orders", "post")
    assert (refused.status_code, refused.json()["error"]["details"][0]["dependency"]) == (503, "database")
    not_cached = _checked(_get(shop, "edge", "/api/products/98"), "/api/products/{product_id}", "get")
    assert not_cached.status_code == 503
    health = _get(shop, "order-1", "/health")
    assert (health.status_code, health.json()["error"]["message"]) == (503, "missing: database")
    shop.start("postgres")
    until("orders are taken again", lambda: _get(shop, "order-1", "/health").status_code == 200)
    assert (shop.query(ORDERS), shop.query(STOCK)) == (orders, stock)
    assert _order(shop).status_code == 201


def test_a_password_that_cannot_be_set_is_not_in_the_log(shop: Shop, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("not for the log\n", encoding="utf-8")
    said = shop.psql(database_script(lambda _: secret), options="-c default_transaction_read_only=on", good=False)
    assert "cannot execute ALTER ROLE in a read-only transaction" in said
    assert "not for the log" not in shop.log("postgres")


def test_a_frozen_database_is_told_of_in_time_and_comes_back(shop: Shop) -> None:
    _get(shop, "product-1", "/products/97")  # the pool has a connection that was good a moment ago
    orders = shop.query(ORDERS)
    frozen = shop.freeze("postgres")
    try:
        started = time.monotonic()
        for answer in (_get(shop, "product-1", "/products/98"), _order(shop)):
            assert (answer.status_code, answer.json()["error"]["details"][0]["dependency"]) == (503, "database")
        assert time.monotonic() - started < 6
    finally:
        frozen()
    until("products are read again", lambda: _get(shop, "product-1", "/products/98").status_code == 404)
    assert shop.query(ORDERS) == orders
    assert _order(shop).status_code == 201


def test_a_database_that_freezes_in_the_middle_of_an_order_is_told_of_in_time(shop: Shop) -> None:
    with ThreadPoolExecutor(1) as pool, shop.connect() as blocker, blocker.transaction():
        blocker.execute("SELECT FROM products WHERE id = 2 FOR UPDATE")
        answer = pool.submit(_order, shop)
        until("the order waits for the row", lambda: shop.query(WAITING) == [(1,)])
        frozen = shop.freeze("postgres")
        try:
            refused = answer.result(6)
        finally:
            frozen()
    assert (refused.status_code, refused.json()["error"]["details"][0]["dependency"]) == (503, "database")


def test_an_order_in_flight_is_finished_before_the_service_stops(shop: Shop) -> None:
    with ThreadPoolExecutor(1) as pool, shop.connect() as blocker:
        with blocker.transaction():
            blocker.execute("SELECT FROM products WHERE id = 2 FOR UPDATE")
            answer = pool.submit(_order, shop)
            until("the order waits for the row", lambda: shop.query(WAITING) == [(1,)])
            shop.running["order-1"].terminate()
            until("no new connection is taken", lambda: not real.listening(shop.ports["order-1"]))
        assert answer.result(10).status_code == 201
    assert shop.running.pop("order-1").wait(10) == 0
    shop.start("order-1")


def test_nobody_who_has_connected_is_lost_when_a_service_stops(shop: Shop) -> None:
    stopping = threading.Event()

    def orders() -> list[str]:
        lost = []
        while not stopping.is_set():
            connection = HTTPConnection(real.LOCAL, shop.ports["order-1"], timeout=10)
            try:
                connection.connect()
            except OSError:  # refused: another replica would be asked
                continue
            try:
                connection.request("POST", "/orders", json.dumps(ORDER), {"Content-Type": "application/json"})
                connection.getresponse().read()
            except (OSError, HTTPException) as error:
                lost.append(repr(error))
            finally:
                connection.close()
        return lost

    for _ in range(4):
        stopping.clear()
        with ThreadPoolExecutor(20) as pool:
            asking = [pool.submit(orders) for _ in range(20)]
            until("orders are taken", lambda: _get(shop, "order-1", "/health").status_code == 200)
            assert shop.stop("order-1") < 3
            stopping.set()
            assert [lost for task in asking for lost in task.result(20)] == []
        shop.start("order-1")


def test_a_commit_that_takes_long_is_waited_for_and_then_not_called_undone(shop: Shop) -> None:
    before = shop.query(ORDERS)[0][0]
    assert isinstance(before, int)

    def standby(name: str) -> None:
        with shop.connect() as connection:
            connection.execute(sql.SQL("ALTER SYSTEM SET synchronous_standby_names = {}").format(sql.Literal(name)))
            connection.execute("SELECT pg_reload_conf()")

    waiting = sql.SQL("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'order'")
    with ThreadPoolExecutor(1) as pool:
        standby("nobody")
        try:
            unknown = requests.post(shop.url("order-1", "/orders"), json=ORDER, timeout=10)
            taken = pool.submit(_order, shop, product_id=1)  # the other one still holds its row
            until("the commit waits, as the first still does", lambda: shop.query(waiting) == [(2,)])
            started = time.monotonic()
            # Longer than a statement may take, and shorter than a commit.
            until("time to pass", lambda: time.monotonic() - started > 2.7)
        finally:
            standby("")
        assert taken.result(10).status_code == 201
    assert unknown.status_code == 503
    assert "is not known" in unknown.json()["error"]["details"][0]["message"]
    until("both orders are there", lambda: shop.query(ORDERS) == [(before + 2,)])


def test_the_server_itself_ends_what_takes_too_long(shop: Shop) -> None:
    settings = DatabaseSettings(
        real.LOCAL, shop.ports["postgres"], "postgres", "order", real.PASSWORD, 2, connect=2, wait=2, statement=0.4
    )

    async def take(*statements: LiteralString) -> BaseException | None:
        database = Database(settings)
        await database.open()
        try:
            async with database.connection() as connection:
                for statement in statements:
                    await connection.execute(statement)
                idle = asyncio.Event()
                asyncio.get_running_loop().call_later(0.6, idle.set)
                await idle.wait()
                await connection.execute("SELECT 1")
        except UnavailableError as error:
            return error.__cause__
        finally:
            await database.close()
        return None

    assert isinstance(asyncio.run(take("SELECT pg_sleep(0.6)")), psycopg.errors.QueryCanceled)
    assert isinstance(asyncio.run(take("SELECT 1")), psycopg.errors.IdleInTransactionSessionTimeout)


def test_an_order_that_cannot_be_kept_takes_nothing_out_of_stock(shop: Shop) -> None:
    before = shop.query(ORDERS), shop.query(STOCK)
    with shop.connect() as connection:
        connection.execute('REVOKE INSERT ON orders FROM "order"')
        try:
            assert _order(shop).status_code == 500
        finally:
            connection.execute('GRANT INSERT ON orders TO "order"')
    assert (shop.query(ORDERS), shop.query(STOCK)) == before
    assert _order(shop).status_code == 201


def test_more_requests_than_the_database_has_connections_are_served_in_turn(shop: Shop) -> None:
    async def ask() -> Counter[int]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def order() -> int:
                async with session.post(shop.url("order-1", "/orders"), json={**ORDER, "product_id": 99}) as answer:
                    return answer.status

            return Counter(await asyncio.gather(*(order() for _ in range(800))))

    assert asyncio.run(ask()) == {404: 800}


def test_stock_is_never_oversold(shop: Shop) -> None:
    left = shop.query(sql.SQL("SELECT stock FROM products WHERE id = 3"))[0][0]
    assert isinstance(left, int)
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: _order(shop, product_id=3, quantity=10).status_code, range(left // 10 + 5))
    assert Counter(answers) == {201: left // 10, 409: 5}


def test_the_schema_can_be_run_again_and_the_roles_have_no_more_rights_than_needed(shop: Shop) -> None:
    before = shop.query(ORDERS) + shop.query(STOCK)
    assert shop.apply_schema() == ""
    assert shop.query(ORDERS) + shop.query(STOCK) == before
    forbidden = {
        "product": ["UPDATE products SET stock = 1", "SELECT FROM orders"],
        "order": ["UPDATE products SET price = 1", "DELETE FROM orders", "INSERT INTO products VALUES (9, 'x', 1, 1)"],
    }
    for role, statements in forbidden.items():
        with shop.connect(role) as connection:
            for statement in statements:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
