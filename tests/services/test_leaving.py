"""A listening socket that takes nobody else, and loses nobody who is there."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from services.common.leaving import drop_new
from tests.services.real import ROOT, listening, until

SHORT_S = 0.2


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_who_is_connected_is_accepted_and_heard_and_who_comes_then_is_not(
    family: socket.AddressFamily, address: str
) -> None:
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server((address, 0), family=family))
        except OSError as error:
            pytest.skip(f"this machine has no {address}: {error}")
        place = listener.getsockname()[:2]
        early = [stack.enter_context(socket.create_connection(place)) for _ in range(3)]
        drop_new(listener)
        late = stack.enter_context(socket.socket(family))
        late.setblocking(False)
        late.connect_ex(place)
        for client in early:
            client.sendall(b"order")
            served = stack.enter_context(listener.accept()[0])
            assert served.recv(5) == b"order"
        listener.setblocking(False)
        assert select.select([listener], [late], [], SHORT_S) == ([], [], []), "nobody else is connected"
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            stack.enter_context(socket.create_connection(place))


def test_a_service_stops_also_where_the_kernel_does_not_let_it_drop_anybody(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("any\n")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    program = """
import runpy
from services.common import leaving
def refused(_):
    raise PermissionError
leaving.drop_new = refused
runpy.run_module("services.order", run_name="__main__")
"""
    environment = {
        "PATH": os.environ["PATH"],
        "BIND_ADDRESS": "127.0.0.1",
        "PORT": str(port),
        "DATABASE_HOST": "127.0.0.1",
        "DATABASE_PORT": str(port),
        "DATABASE_NAME": "shop",
        "DATABASE_USER": "order",
        "DATABASE_PASSWORD_FILE": str(secret),
        "DATABASE_CONNECT_TIMEOUT": "2",
        "DATABASE_WAIT_TIMEOUT": "2",
        "DATABASE_STATEMENT_TIMEOUT": "2",
    }
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as one:
        until("it listens", lambda: listening(port))
        one.send_signal(signal.SIGTERM)
        assert one.wait(5) == 0
