"""Small stand-ins for what cannot run in a unit test: PostgreSQL (two classes) and Redis (a server of three commands).

Redis's stand-in is a real server on a socket, so that the real client and its time-outs are tested.
The same applications run against the real programs in test_real.py.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import requests
from starlette.types import ASGIApp
from uvicorn import Server

from services.common.errors import UnavailableError
from services.common.serve import config
from services.common.settings import ServerSettings
from services.order.store import Order, Wanted, insufficient_stock, unknown_product
from services.product.catalogue import Product

LAPTOP = Product(id=1, name="Laptop", price=999.99, stock=50)
MOUSE = Product(id=2, name="Mouse", price=29.99, stock=200)


class Database:
    """Products and orders in memory; ``up`` switches it off, ``broken`` makes it fail as a bug of ours would."""

    def __init__(self) -> None:
        self.up = True
        self.broken = False
        self.reads = 0
        self.orders: list[Order] = []

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def _touch(self) -> None:
        if self.broken:
            raise ZeroDivisionError("secret detail")
        if not self.up:
            raise UnavailableError("database", "it does not answer")
        self.reads += 1

    async def all(self) -> list[Product]:
        self._touch()
        return [LAPTOP, MOUSE]

    async def get(self, product_id: int) -> Product | None:
        self._touch()
        return {1: LAPTOP, 2: MOUSE}.get(product_id)

    async def alive(self) -> bool:
        return self.up


class Orders(Database):
    """The same for orders."""

    async def create(self, wanted: Wanted) -> Order:
        self._touch()
        product = {1: LAPTOP, 2: MOUSE}.get(wanted.product_id)
        if product is None:
            raise unknown_product(wanted.product_id)
        if product["stock"] < wanted.quantity:
            raise insufficient_stock(wanted, product["stock"])
        order = Order(
            id=len(self.orders) + 1,
            customer_id=wanted.customer_id,
            product_id=wanted.product_id,
            quantity=wanted.quantity,
            unit_price=product["price"],
            total_price=product["price"] * wanted.quantity,
            created_at="2026-01-01T00:00:00+00:00",
        )
        self.orders.append(order)
        return order

    async def get(self, order_id: int) -> Order | None:  # type: ignore[override]
        self._touch()
        return self.orders[order_id - 1] if 0 < order_id <= len(self.orders) else None


class _RedisHandler(socketserver.StreamRequestHandler):
    """GET, SET (its expiry is only remembered) and PING in the protocol of Redis (RESP2)."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, RedisServer)
        server.connections.append(self)
        while line := self.rfile.readline():
            words = [self._word() for _ in range(int(line[1:]))]
            if server.silent:
                continue
            if words[0].upper() == b"GET":
                value = server.values.get(words[1])
                self.wfile.write(b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value))
            elif words[0].upper() == b"SET":
                server.values[words[1]] = words[2]
                server.expiry[words[1]] = int(words[4])
                self.wfile.write(b"+OK\r\n")
            else:
                self.wfile.write(b"+PONG\r\n")

    def _word(self) -> bytes:
        size = int(self.rfile.readline()[1:])
        return self.rfile.read(size + 2)[:-2]


class RedisServer(socketserver.ThreadingTCPServer):
    """A server that knows three commands; ``silent`` makes it take requests and never answer."""

    allow_reuse_address = True
    request_queue_size = 64
    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.values: dict[bytes, bytes] = {}
        self.expiry: dict[bytes, int] = {}
        self.silent = False
        self.connections: list[_RedisHandler] = []
        super().__init__(("127.0.0.1", port), _RedisHandler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


@contextmanager
def redis_server(port: int = 0) -> Iterator[RedisServer]:
    with RedisServer(port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            for connection in server.connections:
                server.shutdown_request(connection.request)


def settings(replica: str = "replica-1", graceful: int = 10) -> ServerSettings:
    return ServerSettings("127.0.0.1", 0, replica, graceful, "info")


@contextmanager
def http_server(app: ASGIApp, address: str = "127.0.0.1", port: int = 0, graceful: int = 10) -> Iterator[int]:
    """Serve an application as the services do, in a thread; gives the port."""
    with socket.create_server((address, port)) as listener:
        taken = int(listener.getsockname()[1])
        server = Server(config(settings(graceful=graceful), app))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield taken
        finally:
            server.should_exit = True
            thread.join()


class Client:
    """Asks a server on 127.0.0.1, over connections that stay open."""

    def __init__(self, port: int) -> None:
        self._server = f"http://127.0.0.1:{port}"
        self._session = requests.Session()
        self._session.trust_env = False

    def ask(
        self,
        method: str,
        path: str,
        json: object = None,
        data: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        return self._session.request(method, self._server + path, json=json, data=data, headers=headers, timeout=10)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> requests.Response:
        return self.ask("GET", path, headers=headers)

    def post(
        self,
        path: str,
        json: object = None,
        data: bytes | Iterator[bytes] | None = None,
        content_type: str | None = "application/json",
    ) -> requests.Response:
        return self.ask("POST", path, json, data, {"Content-Type": content_type} if content_type else None)

    def close(self) -> None:
        self._session.close()


@contextmanager
def client(app: ASGIApp) -> Iterator[Client]:
    """Serve an application and give a client of it."""
    with http_server(app) as port:
        made = Client(port)
        try:
            yield made
        finally:
            made.close()
