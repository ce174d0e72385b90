"""The gateway's application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from services.common.errors import ApiError
from services.common.upstream import Answer, Upstream, UpstreamTimeouts
from services.common.web import (
    DEGRADED,
    HEALTH_PATH,
    JSON,
    OK,
    UNAVAILABLE,
    make_app,
    number,
    read_body,
    request_id,
    tell_cache,
)
from services.gateway.settings import Settings

_PREFIX = "/api"
_LARGEST_PRODUCT = 2**31 - 1
_LARGEST_ORDER = 2**63 - 1


def create_app(settings: Settings) -> ASGIApp:
    """Return the application; connections to the upstreams are made when they are needed."""
    timeouts = UpstreamTimeouts(
        connect=settings.connect,
        read=settings.read_answer,
        total=settings.total,
        resolve=settings.resolve,
        avoid=settings.avoid,
    )
    products = Upstream("product", settings.product_url, timeouts)
    orders = Upstream("order", settings.order_url, timeouts)
    upstreams = (products, orders)

    async def list_products(request: Request) -> Response:
        return _relay(request, await products.get("/products", _headers(request)), "X-Product-Replica")

    async def get_product(request: Request) -> Response:
        path = f"/products/{number(request, _LARGEST_PRODUCT)}"
        return _relay(request, await products.get(path, _headers(request)), "X-Product-Replica")

    async def create_order(request: Request) -> Response:
        headers = _headers(request)
        if content_type := request.headers.get("Content-Type"):
            headers["Content-Type"] = content_type
        return _relay(request, await orders.post("/orders", headers, await read_body(request)), "X-Order-Replica")

    async def get_order(request: Request) -> Response:
        path = f"/orders/{number(request, _LARGEST_ORDER)}"
        return _relay(request, await orders.get(path, _headers(request)), "X-Order-Replica")

    async def dependencies() -> Mapping[str, str]:
        states = await asyncio.gather(*(_state(upstream) for upstream in upstreams))
        return {upstream.name: state for upstream, state in zip(upstreams, states, strict=True)}

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        for upstream in upstreams:
            await upstream.open()
        yield
        for upstream in upstreams:
            await upstream.close()

    routes = (
        Route(f"{_PREFIX}/products", list_products),
        Route(f"{_PREFIX}/products/{{number:int}}", get_product),
        Route(f"{_PREFIX}/orders", create_order, methods=["POST"]),
        Route(f"{_PREFIX}/orders/{{number:int}}", get_order),
    )
    return make_app("gateway", settings.server.replica, routes, dependencies, lifespan)


def _headers(request: Request) -> dict[str, str]:
    forwarded = request.headers.get("X-Forwarded-For") or (request.client.host if request.client else "")
    return {"Accept": JSON, "X-Request-Id": request_id(request), "X-Forwarded-For": forwarded}


def _relay(request: Request, answer: Answer, replica_header: str) -> Response:
    """Pass an upstream's answer on. An answer that is not JSON did not come from the service itself."""
    if answer.headers.get("Content-Type") != JSON:
        raise ApiError(HTTPStatus.BAD_GATEWAY, "bad_gateway", "the service behind this path gave a broken answer")
    response = Response(answer.body, answer.status, media_type=JSON)
    tell_cache(request, answer.headers.get("X-Cache"))
    if replica := answer.headers.get("X-Served-By"):
        response.headers[replica_header] = replica
    if location := answer.headers.get("Location"):
        response.headers["Location"] = _PREFIX + location
    return response


async def _state(upstream: Upstream) -> str:
    answer = await upstream.healthy(HEALTH_PATH)
    if answer is None or answer.status != HTTPStatus.OK:
        return UNAVAILABLE
    # Told by the text, so that a health check does not depend on the shape of another service's answer.
    return DEGRADED if f'"status":"{DEGRADED}"'.encode() in answer.body.replace(b" ", b"") else OK
