"""Every path and status of openapi.yaml is asked for, and answered as the document says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate
from werkzeug.test import TestResponse

import services.gateway.app
import services.order.app
import services.product.app
from services.common.settings import ServerSettings
from services.gateway.settings import Settings as GatewaySettings
from services.product.cache import Cache
from services.product.settings import CacheSettings
from tests.services import contract, fakes

ORDER = {"customer_id": 7, "product_id": 1, "quantity": 2}
NOT_JSON = {"Content-Type": "text/plain"}
TOO_LARGE = b" " * (16 * 1024 + 1)


@dataclass
class Shop:
    database: fakes.Database
    orders: fakes.Orders
    product: FlaskClient
    order: FlaskClient
    gateway: FlaskClient
    broken_gateway: FlaskClient
    lonely_gateway: FlaskClient


def _client(app: Flask) -> FlaskClient:
    return app.test_client()


def _gateway(product: int, order: int) -> FlaskClient:
    server = ServerSettings("127.0.0.1", 3000, "gateway-1", 8, 10, "info")
    settings = GatewaySettings(
        server, f"http://127.0.0.1:{product}", f"http://127.0.0.1:{order}", 0.5, 2.0, 3.0, 1.0, 1.0
    )
    return _client(services.gateway.app.create_app(settings))


@pytest.fixture
def shop() -> Iterator[Shop]:
    database, orders = fakes.Database(), fakes.Orders()
    with ExitStack() as stack:
        redis = stack.enter_context(fakes.redis_server())
        cache = Cache(CacheSettings("127.0.0.1", redis.port, 1.0, 1.0, 300))
        stack.callback(cache.close)
        product = services.product.app.build("product-1", database, cache)
        order = services.order.app.build("order-1", orders)
        html = Flask("html")
        html.add_url_rule("/<path:path>", "html", lambda path: f"<p>{path}", methods=["GET", "POST"])
        product_port, order_port, html_port = (
            stack.enter_context(fakes.http_server(app)) for app in (product, order, html)
        )
        with fakes.http_server(html) as closed:
            pass  # a port where nobody listens any more
        yield Shop(
            database,
            orders,
            _client(product),
            _client(order),
            _gateway(product_port, order_port),
            _gateway(html_port, html_port),
            _gateway(closed, closed),
        )


Ask = Callable[[Shop], TestResponse]
Case = tuple[str, str, int, Ask]


def _down(ask: Ask) -> Ask:
    def asked(shop: Shop) -> TestResponse:
        shop.database.up = shop.orders.up = False
        return ask(shop)

    return asked


def _bug(ask: Ask) -> Ask:
    def asked(shop: Shop) -> TestResponse:
        shop.database.broken = shop.orders.broken = True
        return ask(shop)

    return asked


def _reads(path: str, good: str, missing: str | None, client: Callable[[Shop], FlaskClient]) -> list[Case]:
    def get(shop: Shop) -> TestResponse:
        if "orders" in path:
            shop.order.post("/orders", json=ORDER) if shop.orders.up and not shop.orders.broken else None
        return client(shop).get(good)

    cases: list[Case] = [
        (path, "get", 200, get),
        (path, "get", 405, lambda shop: client(shop).delete(good)),
        (path, "get", 500, _bug(get)),
        (path, "get", 503, _down(get)),
    ]
    if missing:
        cases.append((path, "get", 404, lambda shop: client(shop).get(missing)))
    return cases


def _posts(path: str, client: Callable[[Shop], FlaskClient]) -> list[Case]:
    def post(shop: Shop) -> TestResponse:
        return client(shop).post(path, json=ORDER)

    def body(data: object) -> Ask:
        return lambda shop: client(shop).post(path, json=data)

    return [
        (path, "post", 201, post),
        (path, "post", 400, lambda shop: client(shop).post(path, data=b"{", content_type="application/json")),
        (path, "post", 404, body({**ORDER, "product_id": 99})),
        (path, "post", 405, lambda shop: client(shop).put(path, json=ORDER)),
        (path, "post", 409, body({**ORDER, "quantity": 51})),
        (path, "post", 413, lambda shop: client(shop).post(path, data=TOO_LARGE, content_type="application/json")),
        (path, "post", 415, lambda shop: client(shop).post(path, data=b"{}", headers=NOT_JSON)),
        (path, "post", 422, body({**ORDER, "quantity": 0})),
        (path, "post", 500, _bug(post)),
        (path, "post", 503, _down(post)),
    ]


CASES: list[Case] = [
    ("/health", "get", 200, lambda shop: shop.gateway.get("/health")),
    ("/health", "get", 200, lambda shop: shop.product.get("/health")),
    ("/health", "get", 200, lambda shop: shop.order.get("/health")),
    ("/health", "get", 405, lambda shop: shop.order.post("/health")),
    ("/health", "get", 503, _down(lambda shop: shop.gateway.get("/health"))),
    ("/health", "get", 503, _down(lambda shop: shop.product.get("/health"))),
    ("/health", "get", 503, _down(lambda shop: shop.order.get("/health"))),
    ("/health", "get", 503, lambda shop: shop.lonely_gateway.get("/health")),
    *_reads("/products", "/products", None, lambda shop: shop.product),
    *_reads("/products/{product_id}", "/products/1", "/products/99", lambda shop: shop.product),
    *_reads("/orders/{order_id}", "/orders/1", "/orders/99", lambda shop: shop.order),
    *_posts("/orders", lambda shop: shop.order),
    *_reads("/api/products", "/api/products", None, lambda shop: shop.gateway),
    *_reads("/api/products/{product_id}", "/api/products/1", "/api/products/99", lambda shop: shop.gateway),
    *_reads("/api/orders/{order_id}", "/api/orders/1", "/api/orders/99", lambda shop: shop.gateway),
    *_posts("/api/orders", lambda shop: shop.gateway),
    ("/api/products", "get", 502, lambda shop: shop.broken_gateway.get("/api/products")),
    ("/api/products/{product_id}", "get", 502, lambda shop: shop.broken_gateway.get("/api/products/1")),
    ("/api/orders", "post", 502, lambda shop: shop.broken_gateway.post("/api/orders", json=ORDER)),
    ("/api/orders/{order_id}", "get", 502, lambda shop: shop.broken_gateway.get("/api/orders/1")),
    ("/api/products", "get", 503, lambda shop: shop.lonely_gateway.get("/api/products")),
    ("/api/orders", "post", 503, lambda shop: shop.lonely_gateway.post("/api/orders", json=ORDER)),
]


def test_the_document_is_openapi() -> None:
    validate(contract.document())


def test_every_documented_answer_has_a_case() -> None:
    assert {case[:3] for case in CASES} == contract.documented()


@pytest.mark.parametrize(
    ("path", "method", "status", "ask"),
    [pytest.param(*case, id=f"{number}-{case[1]}-{case[0]}-{case[2]}") for number, case in enumerate(CASES)],
)
def test_answers_are_as_documented(shop: Shop, path: str, method: str, status: int, ask: Ask) -> None:
    response = ask(shop)
    assert response.status_code == status, response.get_data(as_text=True)
    contract.check(path, method, status, dict(response.headers), response.get_json())
    text = response.get_data(as_text=True)
    assert "Traceback" not in text
    assert "secret detail" not in text


def test_the_gateway_names_all_replicas_and_passes_the_request_id_on(shop: Shop) -> None:
    response = shop.gateway.get("/api/products/1", headers={"X-Request-Id": "abc-1"})
    assert response.headers["X-Served-By"] == "gateway-1"
    assert response.headers["X-Product-Replica"] == "product-1"
    assert response.headers["X-Cache"] == "miss"
    assert response.headers["X-Request-Id"] == "abc-1"
    assert shop.gateway.get("/api/products/1").headers["X-Cache"] == "hit"


def test_a_request_id_that_could_forge_logs_is_replaced(shop: Shop) -> None:
    response = shop.product.get("/products", headers={"X-Request-Id": 'a"b'})
    assert response.headers["X-Request-Id"] != 'a"b'


def test_a_new_order_is_found_where_location_says(shop: Shop) -> None:
    created = shop.gateway.post("/api/orders", json=ORDER)
    assert created.headers["Location"] == "/api/orders/1"
    found = shop.gateway.get(created.headers["Location"])
    assert found.get_json() == created.get_json()
    assert found.get_json()["total_price"] == pytest.approx(1999.98)


def test_all_mistakes_of_an_order_are_told(shop: Shop) -> None:
    response = shop.gateway.post("/api/orders", json={"customer_id": True, "quantity": "2", "total_price": 1})
    assert [detail["field"] for detail in response.get_json()["error"]["details"]] == [
        "customer_id",
        "product_id",
        "quantity",
        "total_price",
    ]


@pytest.mark.parametrize("data", [b"", b"\xff", b"[" * 15000, b"9" * 5000, b"{,}"])
def test_what_is_not_json_is_said_to_be_so(shop: Shop, data: bytes) -> None:
    response = shop.order.post("/orders", data=data, content_type="application/json")
    assert (response.status_code, response.get_json()["error"]["code"]) == (400, "malformed_json")


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/products//1", "/products/", "/products/x", "/products/99999999999"]
)
def test_other_paths_are_not_found_in_json(shop: Shop, path: str) -> None:
    response = shop.product.get(path)
    assert (response.status_code, response.get_json()["error"]["code"]) == (404, "not_found")


def test_a_method_that_a_path_does_not_take_is_refused_in_json(shop: Shop) -> None:
    response = shop.product.options("/products")
    assert (response.status_code, response.get_json()["error"]["code"]) == (405, "method_not_allowed")
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD"}


def test_health_names_what_is_missing(shop: Shop) -> None:
    shop.orders.up = False
    assert shop.order.get("/health").get_json()["error"]["message"] == "missing: database"
    body = shop.gateway.get("/health").get_json()
    assert body["dependencies"] == {"product": "ok", "order": "unavailable"}
    assert body["error"]["message"] == "missing: order"
