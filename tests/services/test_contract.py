"""Every path and status of openapi.yaml is asked for, and answered as the document says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import requests
from openapi_spec_validator import validate
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

import services.gateway.app
import services.order.app
import services.product.app
from services.common.web import make_app
from services.gateway.settings import Settings as GatewaySettings
from services.product.cache import Cache
from services.product.settings import CacheSettings
from tests.services import contract, fakes
from tests.services.fakes import Client

ORDER = {"customer_id": 7, "product_id": 1, "quantity": 2}
TOO_LARGE = b" " * (16 * 1024 + 1)


@dataclass
class Shop:
    redis: fakes.RedisServer
    database: fakes.Database
    orders: fakes.Orders
    product: Client
    order: Client
    gateway: Client
    broken_gateway: Client
    lonely_gateway: Client


def _gateway(product: int, order: int) -> ASGIApp:
    settings = GatewaySettings(
        fakes.settings(replica="gateway-1"),
        f"http://127.0.0.1:{product}",
        f"http://127.0.0.1:{order}",
        0.5,
        2.0,
        3.0,
        1.0,
        1.0,
    )
    return services.gateway.app.create_app(settings)


async def _html(request: Request) -> HTMLResponse:
    return HTMLResponse(f"<p>{request.url.path}")


@pytest.fixture(scope="module")
def servers() -> Iterator[Shop]:
    database, orders = fakes.Database(), fakes.Orders()
    with ExitStack() as stack:

        def serve(app: ASGIApp) -> int:
            return stack.enter_context(fakes.http_server(app))

        def client(port: int) -> Client:
            made = Client(port)
            stack.callback(made.close)
            return made

        redis = stack.enter_context(fakes.redis_server())
        cache = Cache(CacheSettings("127.0.0.1", redis.port, 1.0, 1.0, 300))
        product = serve(services.product.app.build("product-1", database, cache))
        order = serve(services.order.app.build("order-1", orders))
        html = serve(Starlette(routes=[Route("/{path:path}", _html, methods=["GET", "POST"])]))
        with fakes.http_server(Starlette()) as closed:
            pass  # a port where nobody listens any more
        yield Shop(
            redis,
            database,
            orders,
            client(product),
            client(order),
            client(serve(_gateway(product, order))),
            client(serve(_gateway(html, html))),
            client(serve(_gateway(closed, closed))),
        )


@pytest.fixture
def shop(servers: Shop) -> Shop:
    """The servers, with nothing cached, nothing ordered and nothing broken."""
    servers.redis.values.clear()
    servers.orders.orders.clear()
    for source in (servers.database, servers.orders):
        source.up, source.broken = True, False
    return servers


Ask = Callable[[Shop], requests.Response]
Case = tuple[str, str, int, Ask]


def _down(ask: Ask) -> Ask:
    def asked(shop: Shop) -> requests.Response:
        shop.database.up = shop.orders.up = False
        return ask(shop)

    return asked


def _bug(ask: Ask) -> Ask:
    def asked(shop: Shop) -> requests.Response:
        shop.database.broken = shop.orders.broken = True
        return ask(shop)

    return asked


def _reads(path: str, good: str, missing: str | None, client: Callable[[Shop], Client]) -> list[Case]:
    def get(shop: Shop) -> requests.Response:
        if "orders" in path:
            shop.order.post("/orders", json=ORDER) if shop.orders.up and not shop.orders.broken else None
        return client(shop).get(good)

    cases: list[Case] = [
        (path, "get", 200, get),
        (path, "get", 405, lambda shop: client(shop).ask("DELETE", good)),
        (path, "get", 500, _bug(get)),
        (path, "get", 503, _down(get)),
    ]
    if missing:
        cases.append((path, "get", 404, lambda shop: client(shop).get(missing)))
    return cases


def _posts(path: str, client: Callable[[Shop], Client]) -> list[Case]:
    def post(shop: Shop) -> requests.Response:
        return client(shop).post(path, json=ORDER)

    def body(data: object) -> Ask:
        return lambda shop: client(shop).post(path, json=data)

    return [
        (path, "post", 201, post),
        (path, "post", 400, lambda shop: client(shop).post(path, data=b"{")),
        (path, "post", 404, body({**ORDER, "product_id": 99})),
        (path, "post", 405, lambda shop: client(shop).ask("PUT", path, ORDER)),
        (path, "post", 409, body({**ORDER, "quantity": 51})),
        (path, "post", 413, lambda shop: client(shop).post(path, data=TOO_LARGE)),
        (path, "post", 415, lambda shop: client(shop).post(path, data=b"{}", content_type="text/plain")),
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
    assert response.status_code == status, response.text
    contract.check(path, method, status, response.headers, response.json())
    text = response.text
    assert "Traceback" not in text
    assert "secret detail" not in text


def test_the_gateway_names_all_replicas_and_passes_the_request_id_on(shop: Shop) -> None:
    response = shop.gateway.get("/api/products/1", headers={"X-Request-Id": "abc-1"})
    assert response.headers["X-Served-By"] == "gateway-1"
    assert response.headers["X-Product-Replica"] == "product-1"
    assert response.headers["X-Cache"] == "miss"
    assert response.headers["X-Request-Id"] == "abc-1"
    assert shop.gateway.get("/api/products/1").headers["X-Cache"] == "hit"


def test_the_gateway_tells_who_asked_and_under_which_name() -> None:
    async def echo(request: Request) -> Response:
        heard = {name: request.headers.get(name) for name in ("X-Forwarded-For", "X-Request-Id", "Accept")}
        return JSONResponse(heard)

    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    with fakes.http_server(app) as port, fakes.client(_gateway(port, port)) as gateway:
        for method, path in (("GET", "/api/products"), ("POST", "/api/orders"), ("GET", "/api/orders/1")):
            told = {"X-Forwarded-For": "192.0.2.7", "X-Request-Id": "r-1", "Content-Type": "application/json"}
            heard = gateway.ask(method, path, headers=told).json()
            assert heard == {"X-Forwarded-For": "192.0.2.7", "X-Request-Id": "r-1", "Accept": "application/json"}
        assert gateway.get("/api/products").json()["X-Forwarded-For"] == "127.0.0.1"


def test_a_request_id_that_could_forge_logs_is_replaced(shop: Shop) -> None:
    response = shop.product.get("/products", headers={"X-Request-Id": 'a"b'})
    assert response.headers["X-Request-Id"] != 'a"b'


def test_a_new_order_is_found_where_location_says(shop: Shop) -> None:
    created = shop.gateway.post("/api/orders", json=ORDER)
    assert created.headers["Location"] == "/api/orders/1"
    found = shop.gateway.get(created.headers["Location"])
    assert found.json() == created.json()
    assert found.json()["total_price"] == pytest.approx(1999.98)


def test_all_mistakes_of_an_order_are_told(shop: Shop) -> None:
    response = shop.gateway.post("/api/orders", json={"customer_id": True, "quantity": "2", "total_price": 1})
    assert [detail["field"] for detail in response.json()["error"]["details"]] == [
        "customer_id",
        "product_id",
        "quantity",
        "total_price",
    ]


@pytest.mark.parametrize("data", [b"", b"\xff", b"[" * 15000, b"9" * 5000, b"{,}"])
def test_what_is_not_json_is_said_to_be_so(shop: Shop, data: bytes) -> None:
    response = shop.order.post("/orders", data=data)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "malformed_json")


def test_a_body_that_does_not_say_its_length_is_refused_once_it_is_too_large(shop: Shop) -> None:
    for client, path in ((shop.order, "/orders"), (shop.gateway, "/api/orders")):
        response = client.post(path, data=iter([TOO_LARGE[:9000], TOO_LARGE[9000:]]))
        assert (response.status_code, response.json()["error"]["code"]) == (413, "payload_too_large")


def test_a_body_of_no_type_is_refused_by_whoever_reads_it(shop: Shop) -> None:
    for client, path in ((shop.order, "/orders"), (shop.gateway, "/api/orders")):
        response = client.post(path, data=b"{}", content_type=None)
        assert (response.status_code, response.json()["error"]["message"]) == (
            415,
            "expected Content-Type application/json, seen none",
        )


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/products//1",
        "/products/",
        "/products/x",
        "/products/99999999999",
        "/products/" + "9" * 5000,
        "/products/\u0661",
        "/products/-1",
        "/products%0a",
        "/products/1%0a",
        "/health%0a",
    ],
)
def test_other_paths_are_not_found_in_json(shop: Shop, path: str) -> None:
    response = shop.product.get(path)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


def test_a_number_may_have_zeros_before_it(shop: Shop) -> None:
    assert shop.product.get("/products/00000000000000000001").json()["id"] == 1


def test_what_is_no_path_takes_no_method(shop: Shop) -> None:
    for client, path in ((shop.product, "/products/abc"), (shop.gateway, "/api/orders%0a")):
        response = client.post(path, json=ORDER)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert shop.orders.orders == []


def test_a_field_of_half_a_character_is_a_mistake_like_others(shop: Shop) -> None:
    response = shop.gateway.post("/api/orders", data=b'{"\\ud800": 1}')
    assert response.status_code == 422


def test_a_request_that_outlasts_the_end_of_its_replica_is_told_so() -> None:
    begun = threading.Event()

    async def wait(_request: Request) -> Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError("it never ends")

    async def nothing() -> dict[str, str]:
        return {}

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield

    app = make_app("order", "order-1", [Route("/wait", wait)], nothing, lifespan)
    with ThreadPoolExecutor(1) as pool:
        with fakes.http_server(app, graceful=1) as port:
            asked = pool.submit(requests.get, f"http://127.0.0.1:{port}/wait", timeout=10)
            assert begun.wait(10)
        answer = asked.result(10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert answer.headers["X-Served-By"] == "order-1"


def test_a_method_that_a_path_does_not_take_is_refused_in_json(shop: Shop) -> None:
    response = shop.product.ask("OPTIONS", "/products")
    assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD"}


def test_health_names_what_is_missing(shop: Shop) -> None:
    shop.orders.up = False
    assert shop.order.get("/health").json()["error"]["message"] == "missing: database"
    body = shop.gateway.get("/health").json()
    assert body["dependencies"] == {"product": "ok", "order": "unavailable"}
    assert body["error"]["message"] == "missing: order"
