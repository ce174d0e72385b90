"""The upstream client against real servers on 127.0.0.1 and 127.0.0.2: turns, fail-over, names."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from flask import Flask, Response, request

from services.common.errors import UnavailableError
from services.common.upstream import Resolver, Upstream, UpstreamTimeouts
from tests.services.fakes import http_server

FIRST, SECOND = "127.0.0.1", "127.0.0.2"
#: Seconds, long enough for a machine that has much else to do.
TIMEOUTS = UpstreamTimeouts(connect=2, read=2, total=10, resolve=60, avoid=60)


def _app(name: str, seen: Counter[str]) -> Flask:
    app = Flask(name)

    @app.route("/x", methods=["GET", "POST"])
    def answer() -> Response:
        seen[f"{request.method} {name}"] += 1
        if request.method == "POST":
            assert request.headers["Connection"] == "close", "an order must not ride on an idle connection"
        return Response(f"{name} {request.host} {request.headers.get('X-Request-Id', '')}")

    return app


@contextmanager
def _replicas(seen: Counter[str]) -> Iterator[int]:
    """Two replicas on one port."""
    with ExitStack() as stack:
        port = stack.enter_context(http_server(_app("first", seen), FIRST))
        stack.enter_context(http_server(_app("second", seen), SECOND, port))
        yield port


@contextmanager
def _breaking(address: str, port: int) -> Iterator[Counter[str]]:
    """A server that reads a request and closes the connection without an answer."""
    seen: Counter[str] = Counter()
    with socket.create_server((address, port)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    seen[connection.recv(65536).split(b" ")[0].decode()] += 1

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield seen
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _upstream(port: int, *addresses: str, timeouts: UpstreamTimeouts = TIMEOUTS) -> Upstream:
    return Upstream("product", f"http://product:{port}", timeouts, 4, lambda _host, _port: addresses)


def test_addresses_take_turns_and_see_the_name_as_host() -> None:
    seen: Counter[str] = Counter()
    with _replicas(seen) as port:
        upstream = _upstream(port, FIRST, SECOND)
        bodies = [upstream.get("/x", {"X-Request-Id": "r"}).body.decode() for _ in range(6)]
        assert bodies == [f"first product:{port} r", f"second product:{port} r"] * 3
        assert upstream.post("/x", {}, b"{}").body.startswith(b"first")
        assert upstream.post("/x", {}, b"{}").body.startswith(b"second")


def test_health_does_not_disturb_the_turns() -> None:
    seen: Counter[str] = Counter()
    with _replicas(seen) as port:
        upstream = _upstream(port, FIRST, SECOND)
        names = []
        for _ in range(4):
            names.append(upstream.get("/x", {}).body.split()[0].decode())
            upstream.healthy("/x")
    assert names == ["first", "second"] * 2


def test_a_refused_connection_goes_to_the_next_address_also_for_orders() -> None:
    seen: Counter[str] = Counter()
    with http_server(_app("second", seen), SECOND) as port:
        upstream = _upstream(port, FIRST, SECOND)
        for _ in range(4):
            assert upstream.get("/x", {}).status == 200
            assert upstream.post("/x", {}, b"{}").status == 200
    assert seen == {"GET second": 4, "POST second": 4}


def test_an_address_that_failed_is_tried_last_for_a_while_and_then_again() -> None:
    seen: Counter[str] = Counter()
    with http_server(_app("second", seen), SECOND) as port:
        with _breaking(FIRST, port) as broken:
            upstream = _upstream(port, FIRST, SECOND)
            for _ in range(10):
                assert upstream.get("/x", {}).status == 200
            assert broken.total() == 2  # a broken connection gets a second chance on a new one
        with http_server(_app("first", seen), FIRST, port):
            healed = _upstream(port, FIRST, SECOND)
            assert healed.get("/x", {}).body.startswith(b"first")


def test_a_get_survives_a_broken_answer_and_an_order_is_not_sent_twice() -> None:
    seen: Counter[str] = Counter()
    with http_server(_app("second", seen), SECOND) as port, _breaking(FIRST, port) as broken:
        assert _upstream(port, FIRST, SECOND).get("/x", {}).body.startswith(b"second")
        with pytest.raises(UnavailableError, match="product is not available") as caught:
            _upstream(port, FIRST, SECOND).post("/x", {}, b"{}")
    assert "not known" in caught.value.details[0]["message"]
    assert broken == {"GET": 2, "POST": 1}
    assert seen == {"GET second": 1}


def test_an_idle_connection_that_was_closed_does_not_show() -> None:
    seen: Counter[str] = Counter()
    with http_server(_app("first", seen), FIRST) as port:
        upstream = _upstream(port, FIRST)
        upstream.get("/x", {})
    with http_server(_app("again", seen), FIRST, port):
        assert upstream.get("/x", {}).body.startswith(b"again")
        assert upstream.post("/x", {}, b"{}").status == 200


def test_nobody_there_is_said_with_the_name() -> None:
    with socket.socket() as holder:
        holder.bind((FIRST, 0))
        port = holder.getsockname()[1]
        with pytest.raises(UnavailableError) as caught:
            _upstream(port, FIRST).get("/x", {})
        assert caught.value.details == ({"dependency": "product", "message": "no connection can be made"},)
        with pytest.raises(UnavailableError) as caught:
            _upstream(port).get("/x", {})
    assert caught.value.details[0]["message"] == "its name does not resolve"


def test_all_attempts_together_end_in_time() -> None:
    with socket.create_server((FIRST, 0), backlog=8) as silent:
        port = silent.getsockname()[1]
        with socket.create_server((SECOND, port), backlog=8):
            timeouts = UpstreamTimeouts(connect=1, read=10, total=0.3, resolve=60, avoid=60)
            started = time.monotonic()
            with pytest.raises(UnavailableError):
                _upstream(port, FIRST, SECOND, timeouts=timeouts).get("/x", {})
    assert 0.3 <= time.monotonic() - started < 1


def test_a_name_is_asked_for_once_in_a_while_and_kept_when_the_name_service_fails() -> None:
    asked: list[str] = []

    def lookup(host: str, _port: int) -> tuple[str, ...]:
        asked.append(host)
        if len(asked) > 1:
            raise OSError("the name service is away")
        return ("10.0.0.1",)

    slow = Resolver("product", 5000, 60, lookup)
    assert [slow.addresses() for _ in range(10)] == [("10.0.0.1",)] * 10
    assert asked == ["product"]
    asked.clear()
    eager = Resolver("product", 5000, 0, lookup)
    assert [eager.addresses() for _ in range(3)] == [("10.0.0.1",)] * 3
    assert len(asked) == 3
