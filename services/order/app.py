"""The order service's application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from services.common import database
from services.common.errors import ApiError
from services.common.web import OK, UNAVAILABLE, answer, json_body, make_app, number
from services.order.settings import Settings
from services.order.store import DatabaseStore, Store, Wanted

#: What PostgreSQL's ``integer`` holds.
_LARGEST = 2**31 - 1
_LARGEST_ORDER = 2**63 - 1
_FIELDS = tuple(field.name for field in fields(Wanted))


def create_app(settings: Settings) -> ASGIApp:
    """Return the application on PostgreSQL, which need not be up yet."""
    return build(settings.server.replica, DatabaseStore(database.Database(settings.database)))


def build(replica: str, store: Store) -> ASGIApp:
    """Return the application on a given store, which it opens and closes."""

    async def create_order(request: Request) -> Response:
        order = await store.create(parse_order(await json_body(request)))
        return answer(order, HTTPStatus.CREATED, {"Location": f"/orders/{order['id']}"})

    async def get_order(request: Request) -> Response:
        order_id = number(request, _LARGEST_ORDER)
        order = await store.get(order_id)
        if order is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "order_not_found", f"there is no order {order_id}")
        return answer(order)

    async def dependencies() -> Mapping[str, str]:
        return {database.NAME: OK if await store.alive() else UNAVAILABLE}

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await store.open()
        yield
        await store.close()

    routes = (Route("/orders", create_order, methods=["POST"]), Route("/orders/{number:int}", get_order))
    return make_app("order", replica, routes, dependencies, lifespan)


def parse_order(body: object) -> Wanted:
    """Return what is wanted; raise ApiError 422 with every mistake in the body."""
    if not isinstance(body, dict):
        raise _invalid([{"field": "", "message": "expected an object with " + ", ".join(_FIELDS)}])
    mistakes = [
        {"field": name, "message": f"expected a whole number from 1 to {_LARGEST}, seen {_shown(body, name)}"}
        for name in _FIELDS
        if not _good(body.get(name))
    ]
    mistakes += [
        {"field": str(name)[:64], "message": "there is no such field; expected " + ", ".join(_FIELDS)}
        for name in body
        if name not in _FIELDS
    ]
    if mistakes:
        raise _invalid(mistakes)
    return Wanted(**body)


def _good(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST


def _shown(body: Mapping[object, object], name: str) -> str:
    if name not in body:
        return "nothing"
    value = body[name]
    return f"{value!r:.40}" if isinstance(value, int | float | str) or value is None else f"a {type(value).__name__}"


def _invalid(mistakes: list[dict[str, str]]) -> ApiError:
    return ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_order", "the order cannot be read", mistakes)
