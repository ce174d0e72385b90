"""The gateway's application."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from flask import Flask, Response, g, request

from services.common.errors import ApiError
from services.common.upstream import Answer, Upstream, UpstreamTimeouts
from services.common.web import DEGRADED, HEALTH_PATH, OK, UNAVAILABLE, make_app
from services.gateway.settings import Settings

_PREFIX = "/api"
_LARGEST_PRODUCT = 2**31 - 1
_LARGEST_ORDER = 2**63 - 1


def create_app(settings: Settings) -> Flask:
    """Return the application; connections to the upstreams are made when they are needed."""
    timeouts = UpstreamTimeouts(
        connect=settings.connect,
        read=settings.read_answer,
        total=settings.total,
        resolve=settings.resolve,
        avoid=settings.avoid,
    )
    products = Upstream("product", settings.product_url, timeouts, settings.server.threads)
    orders = Upstream("order", settings.order_url, timeouts, settings.server.threads)

    def dependencies() -> Mapping[str, str]:
        return {upstream.name: _state(upstream) for upstream in (products, orders)}

    app = make_app("gateway", settings.server.replica, dependencies)

    @app.get(f"{_PREFIX}/products")
    def list_products() -> Response:
        return _relay(products.get("/products", _headers()), "X-Product-Replica")

    @app.get(f"{_PREFIX}/products/<int(max={_LARGEST_PRODUCT}):product_id>")
    def get_product(product_id: int) -> Response:
        return _relay(products.get(f"/products/{product_id}", _headers()), "X-Product-Replica")

    @app.post(f"{_PREFIX}/orders")
    def create_order() -> Response:
        headers = _headers()
        if request.content_type:
            headers["Content-Type"] = request.content_type
        return _relay(orders.post("/orders", headers, request.get_data()), "X-Order-Replica")

    @app.get(f"{_PREFIX}/orders/<int(max={_LARGEST_ORDER}):order_id>")
    def get_order(order_id: int) -> Response:
        return _relay(orders.get(f"/orders/{order_id}", _headers()), "X-Order-Replica")

    return app


def _headers() -> dict[str, str]:
    forwarded = request.headers.get("X-Forwarded-For") or request.remote_addr or ""
    return {"Accept": "application/json", "X-Request-Id": g.request_id, "X-Forwarded-For": forwarded}


def _relay(answer: Answer, replica_header: str) -> Response:
    """Pass an upstream's answer on. An answer that is not JSON did not come from the service itself."""
    if answer.headers.get("Content-Type") != "application/json":
        raise ApiError(HTTPStatus.BAD_GATEWAY, "bad_gateway", "the service behind this path gave a broken answer")
    response = Response(answer.body, answer.status, content_type="application/json")
    for name, given in ((replica_header, "X-Served-By"), ("X-Cache", "X-Cache")):
        if given in answer.headers:
            response.headers[name] = answer.headers[given]
    if location := answer.headers.get("Location"):
        response.headers["Location"] = _PREFIX + location
    return response


def _state(upstream: Upstream) -> str:
    answer = upstream.healthy(HEALTH_PATH)
    if answer is None or answer.status != HTTPStatus.OK:
        return UNAVAILABLE
    # Told by the text, so that a health check does not depend on the shape of another service's answer.
    return DEGRADED if f'"status":"{DEGRADED}"'.encode() in answer.body.replace(b" ", b"") else OK
