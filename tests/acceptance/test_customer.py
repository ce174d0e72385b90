"""What a customer sees: real connections over this machine's loopback, and what the kernel says of those that fail."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from acceptance.customer import Customer
from acceptance.traffic import Attempt
from tests.plans import shop
from underlay.hosts.vagrant.labs import VagrantOutside

HERE = "127.0.0.1"


class Echo(http.server.BaseHTTPRequestHandler):
    """Says what it was asked; a redirect for one path."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        said = json.dumps({"path": self.path, "body": body, "given": self.headers["X-Given"]}).encode()
        self.send_response(302 if self.path == "/elsewhere" else 201)
        self.send_header("Location", "/nowhere")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer((HERE, 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


class Nowhere(VagrantOutside):
    """The machine itself, with its own network."""

    @property
    def network(self) -> Path | None:
        return None

    @property
    def address(self) -> IPv4Address:
        return IPv4Address(HERE)


@pytest.fixture
def customer() -> Iterator[Customer]:
    plan = shop.plan()
    made = Customer(Nowhere(plan), plan)
    yield made
    made.close()


def test_requests_are_sent_as_they_are_and_answers_come_back_whole(customer: Customer, port: int) -> None:
    wanted = Attempt("http", HERE, port, method="POST", path="/a%20b?c", body="{ä", headers={"X-Given": "1"})
    seen = customer.one(wanted)
    assert (seen.outcome, seen.status, seen.headers["location"]) == ("connected", 201, "/nowhere")
    assert seen.data == {"path": "/a%20b?c", "body": "{ä", "given": "1"}


def test_no_redirect_is_followed(customer: Customer, port: int) -> None:
    assert customer.one(Attempt("http", HERE, port, method="POST", path="/elsewhere", body="x")).status == 302


def test_what_the_kernel_says_is_said(customer: Customer) -> None:
    with socket.socket() as unheard:
        unheard.bind((HERE, 0))
        seen = customer.one(Attempt("http", HERE, unheard.getsockname()[1]))
    assert (seen.outcome, seen.error) == ("refused", "ECONNREFUSED")


def test_what_is_no_http_is_an_error(customer: Customer) -> None:
    with socket.create_server((HERE, 0)) as server:

        def greet() -> None:
            with server.accept()[0] as link:
                link.sendall(b"hello\n")

        thread = threading.Thread(target=greet)
        thread.start()
        seen = customer.one(Attempt("http", HERE, server.getsockname()[1]))
        thread.join()
    assert seen.outcome == "error"
    assert "hello" in seen.error
