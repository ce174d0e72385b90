"""Orders in PostgreSQL: an order and the stock that it takes are written together or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Protocol, TypedDict

from services.common.database import Database
from services.common.errors import ApiError


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a customer wants to order."""

    customer_id: int
    product_id: int
    quantity: int


class Order(TypedDict):
    """An order as clients see it; ``created_at`` is ISO 8601 in UTC."""

    id: int
    customer_id: int
    product_id: int
    quantity: int
    unit_price: float
    total_price: float
    created_at: str


class Store(Protocol):
    """Where orders are kept. ``create`` and ``get`` raise UnavailableError when the place does not answer."""

    async def open(self) -> None:
        """Start to connect; the place need not be up yet."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...

    async def create(self, wanted: Wanted) -> Order:
        """Take an order; raise ApiError 404 for an unknown product and 409 when too few are in stock."""
        ...

    async def get(self, order_id: int) -> Order | None:
        """Return an order, or None if there is no such."""
        ...

    async def alive(self) -> bool:
        """Whether the place answers."""
        ...


def unknown_product(product_id: int) -> ApiError:
    """Return the error for a product that there is not."""
    return ApiError(HTTPStatus.NOT_FOUND, "product_not_found", f"there is no product {product_id}")


def insufficient_stock(wanted: Wanted, stock: int) -> ApiError:
    """Return the error for more than there is in stock."""
    return ApiError(
        HTTPStatus.CONFLICT,
        "insufficient_stock",
        f"{wanted.quantity} of product {wanted.product_id} were ordered and {stock} are in stock",
        [{"field": "quantity", "message": f"at most {stock}"}],
    )


class DatabaseStore:
    """Orders in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        """Start to connect, in the background."""
        await self._database.open()

    async def close(self) -> None:
        """Close all connections."""
        await self._database.close()

    async def create(self, wanted: Wanted) -> Order:
        """Take an order, in one transaction that also takes the stock."""
        async with self._database.connection() as connection:
            # The condition stands in the update itself: the row is locked by it, so two orders cannot both
            # take the last one.
            update = await connection.execute(
                "UPDATE products SET stock = stock - %(quantity)s WHERE id = %(product)s AND stock >= %(quantity)s"
                " RETURNING price",
                {"quantity": wanted.quantity, "product": wanted.product_id},
            )
            taken = await update.fetchone()
            if taken is None:
                select = await connection.execute("SELECT stock FROM products WHERE id = %s", (wanted.product_id,))
                found = await select.fetchone()
                raise unknown_product(wanted.product_id) if found is None else insufficient_stock(wanted, found[0])
            price: Decimal = taken[0]
            insert = await connection.execute(
                "INSERT INTO orders (customer_id, product_id, quantity, unit_price, total_price)"
                " VALUES (%s, %s, %s, %s, %s)"
                " RETURNING id, customer_id, product_id, quantity, unit_price, total_price, created_at",
                (wanted.customer_id, wanted.product_id, wanted.quantity, price, price * wanted.quantity),
            )
            row = await insert.fetchone()
        if row is None:  # INSERT ... RETURNING gives a row or raises
            raise AssertionError("an inserted order was not returned")
        return _order(*row)

    async def get(self, order_id: int) -> Order | None:
        """Return an order, or None if there is no such."""
        async with self._database.connection() as connection:
            select = await connection.execute(
                "SELECT id, customer_id, product_id, quantity, unit_price, total_price, created_at"
                " FROM orders WHERE id = %s",
                (order_id,),
            )
            row = await select.fetchone()
        return None if row is None else _order(*row)

    async def alive(self) -> bool:
        """Whether the database answers and has the tables."""
        return await self._database.alive("SELECT FROM orders, products LIMIT 1")


def _order(
    number: int,
    customer_id: int,
    product_id: int,
    quantity: int,
    unit_price: Decimal,
    total_price: Decimal,
    created_at: datetime,
) -> Order:
    return Order(
        id=number,
        customer_id=customer_id,
        product_id=product_id,
        quantity=quantity,
        # The schema allows 15 digits at most, which a float carries exactly.
        unit_price=float(unit_price),
        total_price=float(total_price),
        created_at=created_at.astimezone(UTC).isoformat(),
    )
