"""The order service's application."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from http import HTTPStatus

from flask import Flask, Response, jsonify

from services.common import database
from services.common.errors import ApiError
from services.common.web import OK, UNAVAILABLE, json_body, make_app
from services.order.settings import Settings
from services.order.store import DatabaseStore, Store, Wanted

#: What PostgreSQL's ``integer`` holds.
_LARGEST = 2**31 - 1
_LARGEST_ORDER = 2**63 - 1
_FIELDS = tuple(field.name for field in fields(Wanted))


def create_app(settings: Settings) -> Flask:
    """Return the application on PostgreSQL, which need not be up yet."""
    return build(settings.server.replica, DatabaseStore(database.Database(settings.database)))


def build(replica: str, store: Store) -> Flask:
    """Return the application on a given store."""

    def dependencies() -> Mapping[str, str]:
        return {database.NAME: OK if store.alive() else UNAVAILABLE}

    app = make_app("order", replica, dependencies)

    @app.post("/orders")
    def create_order() -> Response:
        order = store.create(parse_order(json_body()))
        response = jsonify(order)
        response.status_code = HTTPStatus.CREATED
        response.headers["Location"] = f"/orders/{order['id']}"
        return response

    @app.get(f"/orders/<int(max={_LARGEST_ORDER}):order_id>")
    def get_order(order_id: int) -> Response:
        order = store.get(order_id)
        if order is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "order_not_found", f"there is no order {order_id}")
        return jsonify(order)

    return app


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
