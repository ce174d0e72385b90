from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from services.common.healthy import healthy


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that answers /health with a status, and everything else with 404; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False), (500, False)])
def test_a_service_is_well_if_it_says_so(status: int, well: bool) -> None:
    with answering(status) as port:
        assert healthy("127.0.0.1", port) is well


def test_one_that_does_not_listen_is_not() -> None:
    with answering(200) as port:
        pass
    with pytest.raises(ConnectionRefusedError):
        healthy("127.0.0.1", port)
