"""The product service's application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from services.common import database
from services.common.errors import ApiError
from services.common.web import DEGRADED, OK, UNAVAILABLE, answer, make_app, number, tell_cache
from services.product.cache import Cache, Outcome
from services.product.catalogue import Catalogue, DatabaseCatalogue
from services.product.settings import Settings

_ALL = "all_products"
_LARGEST_ID = 2**31 - 1


def create_app(settings: Settings) -> ASGIApp:
    """Return the application on PostgreSQL and Redis; neither of them needs to be up yet."""
    cache = None if settings.cache is None else Cache(settings.cache)
    return build(settings.server.replica, DatabaseCatalogue(database.Database(settings.database)), cache)


def build(replica: str, catalogue: Catalogue, cache: Cache | None) -> ASGIApp:
    """Return the application on a given catalogue and cache (None: every request goes to the catalogue).

    It opens and closes them.
    """
    products = _Products(catalogue, cache)
    routes = (Route("/products", products.all), Route("/products/{number:int}", products.one))
    return make_app("product", replica, routes, products.dependencies, products.lifespan)


class _Products:
    """The answers, and what they need."""

    def __init__(self, catalogue: Catalogue, cache: Cache | None) -> None:
        self._catalogue = catalogue
        self._cache = cache

    async def all(self, request: Request) -> Response:
        return answer({"products": await self._cached(request, _ALL, self._catalogue.all)})

    async def one(self, request: Request) -> Response:
        product_id = number(request, _LARGEST_ID)
        product = await self._cached(request, f"product_{product_id}", lambda: self._catalogue.get(product_id))
        if product is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "product_not_found", f"there is no product {product_id}")
        return answer(product)

    async def dependencies(self) -> Mapping[str, str]:
        states = {database.NAME: OK if await self._catalogue.alive() else UNAVAILABLE}
        if self._cache is not None:
            states["redis"] = OK if await self._cache.alive() else DEGRADED
        return states

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        await self._catalogue.open()
        yield
        await self._catalogue.close()
        if self._cache is not None:
            await self._cache.close()

    async def _cached(self, request: Request, key: str, load: Callable[[], Awaitable[object]]) -> object:
        """Return the value from the cache or, failing that, from ``load``; a header tells the outcome."""
        outcome, value = (Outcome.BYPASS, None) if self._cache is None else await self._cache.get(key)
        tell_cache(request, outcome.value)
        if outcome is Outcome.HIT:
            return value
        value = await load()
        if value is not None and self._cache is not None and outcome is Outcome.MISS:
            await self._cache.put(key, value)
        return value
