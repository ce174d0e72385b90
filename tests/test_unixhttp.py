"""Requests over a Unix socket, asked of a real server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from threading import Thread

import pytest

from underlay.unixhttp import Answer, request

_SECONDS = 5.0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "a unix socket"

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        if self.path == "/chunks":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b'5\r\n{"a":\r\n3\r\n 1}\r\n0\r\n\r\n')
        else:
            self._answer(404, f"no {self.path}".encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(201, f"{self.headers['Content-Type']}: ".encode() + body)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "socket"
    with ThreadingUnixStreamServer(str(path), _Handler) as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield path
        finally:
            running.shutdown()
            thread.join()


@contextmanager
def _says(path: Path, text: bytes) -> Iterator[None]:
    """A server that says this to the first who asks, and hangs up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            with listening.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(text)

        thread = Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def test_a_body_is_posted_with_its_headers(server: Path) -> None:
    answer = request(server, "POST", "/RPC2", timeout=_SECONDS, body="ä", headers={"Content-Type": "text/xml"})
    assert answer == Answer(201, "Created", "text/xml: ä".encode())


def test_an_answer_in_chunks_is_put_together(server: Path) -> None:
    assert request(server, "GET", "/chunks", timeout=_SECONDS).body == b'{"a": 1}'


def test_a_refusal_is_an_answer(server: Path) -> None:
    assert request(server, "GET", "/x?y=1", timeout=_SECONDS) == Answer(404, "Not Found", b"no /x?y=1")


def test_an_answer_before_all_was_asked_is_an_answer(tmp_path: Path) -> None:
    """As of a server that refuses, and hangs up, when it has seen the headers: the rest cannot be sent any more."""
    more = bytes(1 << 24)  # than any socket holds
    with _says(tmp_path / "socket", b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"):
        answer = request(tmp_path / "socket", "POST", "/RPC2", timeout=_SECONDS, body=more)
    assert answer == Answer(401, "Unauthorized", b"no")


@pytest.mark.parametrize("text", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
def test_what_is_no_whole_answer_in_http_is_an_error_of_the_connection(tmp_path: Path, text: bytes) -> None:
    with _says(tmp_path / "socket", text), pytest.raises(ConnectionError):
        request(tmp_path / "socket", "GET", "/", timeout=_SECONDS)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        request(tmp_path / "socket", "GET", "/", timeout=_SECONDS)


def test_a_silent_server_is_waited_for_no_longer_than_said(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        with pytest.raises(TimeoutError):
            request(tmp_path / "socket", "GET", "/", timeout=0.05)
