"""The upstream client against real servers on 127.0.0.1 and 127.0.0.2: turns, fail-over, names."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from services.common.errors import UnavailableError
from services.common.upstream import Answer, Resolver, Upstream, UpstreamTimeouts, lookup
from tests.services.fakes import http_server

FIRST, SECOND = "127.0.0.1", "127.0.0.2"
#: Seconds, long enough for a machine that has much else to do.
TIMEOUTS = UpstreamTimeouts(connect=2, read=2, total=10, resolve=60, avoid=60)


def _app(name: str, seen: Counter[str]) -> Starlette:
    async def answer(request: Request) -> Response:
        seen[f"{request.method} {name}"] += 1
        if request.method == "POST":
            assert request.headers["Connection"] == "close", "an order must not ride on an idle connection"
        return PlainTextResponse(f"{name} {request.headers['Host']} {request.headers.get('X-Request-Id', '')}")

    async def elsewhere(_request: Request) -> Response:
        return RedirectResponse("/x", 302)

    return Starlette(routes=[Route("/x", answer, methods=["GET", "POST"]), Route("/elsewhere", elsewhere)])


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


@asynccontextmanager
async def _upstream(port: int, *addresses: str, timeouts: UpstreamTimeouts = TIMEOUTS) -> AsyncIterator[Upstream]:
    async def lookup(_host: str, _port: int) -> tuple[str, ...]:
        return addresses

    upstream = Upstream("product", f"http://product:{port}", timeouts, lookup)
    await upstream.open()
    try:
        yield upstream
    finally:
        await upstream.close()


async def _get(upstream: Upstream) -> Answer:
    return await upstream.get("/x", {})


async def _post(upstream: Upstream) -> Answer:
    return await upstream.post("/x", {}, b"{}")


def test_addresses_take_turns_and_see_the_name_as_host() -> None:
    async def ask(port: int) -> None:
        async with _upstream(port, FIRST, SECOND) as upstream:
            bodies = [(await upstream.get("/x", {"X-Request-Id": "r"})).body.decode() for _ in range(6)]
            assert bodies == [f"first product:{port} r", f"second product:{port} r"] * 3
            assert (await _post(upstream)).body.startswith(b"first")
            assert (await _post(upstream)).body.startswith(b"second")

    with _replicas(Counter()) as port:
        asyncio.run(ask(port))


def test_health_does_not_disturb_the_turns() -> None:
    async def ask(port: int) -> list[str]:
        names = []
        async with _upstream(port, FIRST, SECOND) as upstream:
            for _ in range(4):
                names.append((await _get(upstream)).body.split()[0].decode())
                await upstream.healthy("/x")
        return names

    with _replicas(Counter()) as port:
        assert asyncio.run(ask(port)) == ["first", "second"] * 2


def test_a_refused_connection_goes_to_the_next_address_also_for_orders() -> None:
    async def ask(port: int) -> None:
        async with _upstream(port, FIRST, SECOND) as upstream:
            for _ in range(4):
                assert (await _get(upstream)).status == 200
                assert (await _post(upstream)).status == 200

    seen: Counter[str] = Counter()
    with http_server(_app("second", seen), SECOND) as port:
        asyncio.run(ask(port))
    assert seen == {"GET second": 4, "POST second": 4}


def test_an_address_that_failed_is_tried_last_for_a_while_and_then_again() -> None:
    async def ask(port: int, times: int) -> Answer:
        async with _upstream(port, FIRST, SECOND) as upstream:
            for _ in range(times):
                answer = await _get(upstream)
                assert answer.status == 200
            return answer

    seen: Counter[str] = Counter()
    with http_server(_app("second", seen), SECOND) as port:
        with _breaking(FIRST, port) as broken:
            asyncio.run(ask(port, 10))
            assert broken.total() == 2  # a broken connection gets a second chance on a new one
        with http_server(_app("first", seen), FIRST, port):
            assert asyncio.run(ask(port, 1)).body.startswith(b"first")


def test_a_get_survives_a_broken_answer_and_an_order_is_not_sent_twice() -> None:
    async def ask(port: int) -> None:
        async with _upstream(port, FIRST, SECOND) as upstream:
            assert (await _get(upstream)).body.startswith(b"second")
        async with _upstream(port, FIRST, SECOND) as upstream:
            with pytest.raises(UnavailableError, match="product is not available") as caught:
                await _post(upstream)
            assert "not known" in caught.value.details[0]["message"]

    seen: Counter[str] = Counter()
    with http_server(_app("second", seen), SECOND) as port, _breaking(FIRST, port) as broken:
        asyncio.run(ask(port))
    assert broken == {"GET": 2, "POST": 1}
    assert seen == {"GET second": 1}


def test_an_order_whose_answer_takes_too_long_is_not_sent_twice() -> None:
    async def ask(port: int) -> None:
        timeouts = UpstreamTimeouts(connect=2, read=0.2, total=10, resolve=60, avoid=60)
        async with _upstream(port, FIRST, SECOND, timeouts=timeouts) as upstream:
            with pytest.raises(UnavailableError) as caught:
                await _post(upstream)
            assert "not known" in caught.value.details[0]["message"]

    seen: Counter[str] = Counter()
    with http_server(_app("second", seen), SECOND) as port, socket.create_server((FIRST, port), backlog=8):
        asyncio.run(ask(port))
    assert seen == {}


def test_an_order_whose_time_ends_before_it_was_sent_is_known_not_to_be_taken() -> None:
    async def ask(port: int) -> None:
        timeouts = UpstreamTimeouts(connect=5, read=5, total=0.3, resolve=60, avoid=60)
        async with _upstream(port, FIRST, timeouts=timeouts) as upstream:
            with pytest.raises(UnavailableError) as caught:
                await _post(upstream)
            assert caught.value.details[0]["message"] == "no connection can be made"

    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server((FIRST, 0), backlog=0))
        for _ in range(3):  # the queue takes one more than it is told; who comes then waits
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        asyncio.run(ask(full.getsockname()[1]))


@pytest.mark.parametrize(("connect", "read"), [(0.3, 5.0), (5.0, 0.3)])
def test_a_replica_that_says_nothing_costs_its_own_time_out_and_no_more(connect: float, read: float) -> None:
    """One that takes no connection costs the time to connect, one that gives no answer the time to read."""

    async def ask(port: int) -> float:
        timeouts = UpstreamTimeouts(connect=connect, read=read, total=20, resolve=60, avoid=60)
        async with _upstream(port, FIRST, SECOND, timeouts=timeouts) as upstream:
            started = time.monotonic()
            assert (await _get(upstream)).body.startswith(b"second")
            return time.monotonic() - started

    with ExitStack() as stack:
        port = stack.enter_context(http_server(_app("second", Counter()), SECOND))
        backlog = 0 if connect < read else 8
        silent = stack.enter_context(socket.create_server((FIRST, port), backlog=backlog))
        for _ in range(3 if backlog == 0 else 0):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(silent.getsockname())
        assert 0.3 <= asyncio.run(ask(port)) < 3


def test_a_body_that_breaks_off_is_asked_for_once_more() -> None:
    bodies = iter([b"ha", b"whole"])

    async def half(_request: Request) -> Response:
        body = next(bodies)
        return Response(body, headers={"Content-Length": "5"})

    async def ask(port: int) -> Answer:
        async with _upstream(port, FIRST) as upstream:
            return await _get(upstream)

    with http_server(Starlette(routes=[Route("/x", half)]), FIRST) as port:
        assert asyncio.run(ask(port)).body == b"whole"


def test_an_idle_connection_that_was_closed_does_not_show() -> None:
    async def ask() -> None:
        seen: Counter[str] = Counter()
        with ExitStack() as stack:
            port = stack.enter_context(http_server(_app("first", seen), FIRST))
            async with _upstream(port, FIRST) as upstream:
                await _get(upstream)
                stack.close()  # this loop has had no chance to see that the connection is closed
                with http_server(_app("again", seen), FIRST, port):
                    assert (await _get(upstream)).body.startswith(b"again")
                    assert (await _post(upstream)).status == 200

    asyncio.run(ask())


def test_a_redirect_is_passed_on_and_not_followed() -> None:
    async def ask(port: int) -> Answer:
        async with _upstream(port, FIRST) as upstream:
            return await upstream.get("/elsewhere", {})

    with http_server(_app("first", Counter()), FIRST) as port:
        answer = asyncio.run(ask(port))
    assert (answer.status, answer.headers["Location"]) == (302, "/x")


def test_nobody_there_is_said_with_the_name() -> None:
    async def ask(port: int) -> None:
        async with _upstream(port, FIRST) as upstream:
            with pytest.raises(UnavailableError) as caught:
                await _get(upstream)
            assert caught.value.details == ({"dependency": "product", "message": "no connection can be made"},)
        async with _upstream(port) as upstream:
            with pytest.raises(UnavailableError) as caught:
                await _get(upstream)
            assert caught.value.details[0]["message"] == "its name does not resolve"

    with socket.socket() as holder:
        holder.bind((FIRST, 0))
        asyncio.run(ask(holder.getsockname()[1]))


def test_all_attempts_together_end_in_time() -> None:
    async def ask(port: int) -> float:
        timeouts = UpstreamTimeouts(connect=1, read=10, total=0.3, resolve=60, avoid=60)
        async with _upstream(port, FIRST, SECOND, timeouts=timeouts) as upstream:
            started = time.monotonic()
            with pytest.raises(UnavailableError):
                await _get(upstream)
            return time.monotonic() - started

    with socket.create_server((FIRST, 0), backlog=8) as silent:
        port = silent.getsockname()[1]
        with socket.create_server((SECOND, port), backlog=8):
            assert 0.3 <= asyncio.run(ask(port)) < 1


def test_a_name_is_asked_for_once_in_a_while_and_kept_when_the_name_service_fails() -> None:
    asked: list[str] = []

    async def lookup(host: str, _port: int) -> tuple[str, ...]:
        asked.append(host)
        if len(asked) > 1:
            raise OSError("the name service is away")
        return ("10.0.0.1",)

    async def ask(keep: float) -> list[tuple[str, ...]]:
        resolver = Resolver("product", 5000, keep, 1, lookup)
        return [await resolver.addresses() for _ in range(3)]

    assert asyncio.run(ask(60)) == [("10.0.0.1",)] * 3
    assert asked == ["product"]
    asked.clear()
    assert asyncio.run(ask(0)) == [("10.0.0.1",)] * 3
    assert len(asked) == 3


def test_a_name_that_no_dns_can_hold_does_not_resolve() -> None:
    async def ask() -> list[tuple[str, ...]]:
        resolver = Resolver(f"{'x' * 70}.{'y' * 70}", 5000, 60, 1, lookup)
        return [await resolver.addresses() for _ in range(2)]

    assert asyncio.run(ask()) == [(), ()]


def test_a_name_service_that_does_not_answer_costs_its_patience_once() -> None:
    asked: list[str] = []

    async def lookup(host: str, _port: int) -> tuple[str, ...]:
        asked.append(host)
        if len(asked) > 1:
            await asyncio.Event().wait()
        return ("10.0.0.1",)

    async def ask() -> float:
        resolver = Resolver("product", 5000, 0, 0.2, lookup)
        await resolver.addresses()
        started = time.monotonic()
        assert await asyncio.gather(*(resolver.addresses() for _ in range(10))) == [("10.0.0.1",)] * 10
        return time.monotonic() - started

    assert 0.2 <= asyncio.run(ask()) < 2
    assert len(asked) == 2


def test_many_requests_at_once_ask_for_a_name_once() -> None:
    asked: list[str] = []

    async def lookup(host: str, _port: int) -> tuple[str, ...]:
        asked.append(host)
        answered = asyncio.Event()
        asyncio.get_running_loop().call_soon(answered.set)
        await answered.wait()
        return ("10.0.0.1",)

    async def ask() -> list[tuple[str, ...]]:
        resolver = Resolver("product", 5000, 60, 1, lookup)
        return await asyncio.gather(*(resolver.addresses() for _ in range(10)))

    assert asyncio.run(ask()) == [("10.0.0.1",)] * 10
    assert asked == ["product"]
