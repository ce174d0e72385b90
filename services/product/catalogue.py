"""The products in PostgreSQL, read only."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol, TypedDict

from services.common.database import Database


class Product(TypedDict):
    """A product as clients see it."""

    id: int
    name: str
    price: float
    stock: int


class Catalogue(Protocol):
    """Where products come from. ``all`` and ``get`` raise UnavailableError when the source does not answer."""

    async def open(self) -> None:
        """Start to connect; the source need not be up yet."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...

    async def all(self) -> list[Product]:
        """Return all products, by id."""
        ...

    async def get(self, product_id: int) -> Product | None:
        """Return one product, or None if there is no such."""
        ...

    async def alive(self) -> bool:
        """Whether the source answers."""
        ...


_SELECT_ALL = "SELECT id, name, price, stock FROM products ORDER BY id"
_SELECT_ONE = "SELECT id, name, price, stock FROM products WHERE id = %s"


class DatabaseCatalogue:
    """The catalogue in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        """Start to connect, in the background."""
        await self._database.open()

    async def close(self) -> None:
        """Close all connections."""
        await self._database.close()

    async def all(self) -> list[Product]:
        """Return all products, by id."""
        async with self._database.connection() as connection:
            return [_product(*row) async for row in await connection.execute(_SELECT_ALL)]

    async def get(self, product_id: int) -> Product | None:
        """Return one product, or None if there is no such."""
        async with self._database.connection() as connection:
            row = await (await connection.execute(_SELECT_ONE, (product_id,))).fetchone()
        return None if row is None else _product(*row)

    async def alive(self) -> bool:
        """Whether the database answers and has the table."""
        return await self._database.alive("SELECT FROM products LIMIT 1")


def _product(number: int, name: str, price: Decimal, stock: int) -> Product:
    # At most ten digits: a float carries them exactly (15 would still be safe).
    return Product(id=number, name=name, price=float(price), stock=stock)
