"""The product service's application."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from flask import Flask, Response, g, jsonify

from services.common import database
from services.common.errors import ApiError
from services.common.web import DEGRADED, OK, UNAVAILABLE, make_app
from services.product.cache import Cache, Outcome
from services.product.catalogue import Catalogue, DatabaseCatalogue
from services.product.settings import Settings

_ALL = "all_products"
_LARGEST_ID = 2**31 - 1


def create_app(settings: Settings) -> Flask:
    """Return the application on PostgreSQL and Redis; neither of them needs to be up yet."""
    cache = None if settings.cache is None else Cache(settings.cache)
    return build(settings.server.replica, DatabaseCatalogue(database.Database(settings.database)), cache)


def build(replica: str, catalogue: Catalogue, cache: Cache | None) -> Flask:
    """Return the application on a given catalogue and cache (None: every request goes to the catalogue)."""

    def dependencies() -> Mapping[str, str]:
        states = {database.NAME: OK if catalogue.alive() else UNAVAILABLE}
        if cache is not None:
            states["redis"] = OK if cache.alive() else DEGRADED
        return states

    app = make_app("product", replica, dependencies)

    @app.after_request
    def tell_cache(response: Response) -> Response:
        if "cache" in g:
            response.headers["X-Cache"] = g.cache
        return response

    @app.get("/products")
    def list_products() -> Response:
        return jsonify({"products": _cached(cache, _ALL, catalogue.all)})

    @app.get(f"/products/<int(max={_LARGEST_ID}):product_id>")
    def get_product(product_id: int) -> Response:
        product = _cached(cache, f"product_{product_id}", lambda: catalogue.get(product_id))
        if product is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "product_not_found", f"there is no product {product_id}")
        return jsonify(product)

    return app


def _cached(cache: Cache | None, key: str, load: Callable[[], object]) -> object:
    """Return the value from the cache or, failing that, from ``load``; the outcome is left for the header."""
    outcome, value = (Outcome.BYPASS, None) if cache is None else cache.get(key)
    g.cache = outcome.value
    if outcome is Outcome.HIT:
        return value
    value = load()
    if value is not None and cache is not None and outcome is Outcome.MISS:
        cache.put(key, value)
    return value
