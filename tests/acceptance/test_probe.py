"""What the probe says where something is broken: with sockets of this machine's loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from acceptance.traffic import Attempt, Listener
from underlay.repository import REPOSITORY

_FEW, _SHORT = 1, 0.2


def ask(request: dict[str, object]) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-P", str(REPOSITORY / "acceptance" / "probe.py")]
    return subprocess.run(program, input=json.dumps(request), capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def silent() -> Iterator[int]:
    """Lend a port whose connections are never answered: nobody takes those that wait, and no more may wait."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            yield port


def test_what_was_not_tried_names_the_first_that_timed_out(silent: int) -> None:
    attempts = [asdict(Attempt("tcp", "127.0.0.1", port)) for port in (silent, silent + 1)]
    done = ask(
        {"do": "attempt", "timeout": _SHORT, "chain": None, "limit": _SHORT, "patience": _FEW, "attempts": attempts}
    )
    first, second = json.loads(done.stdout)
    assert first["outcome"] == "timeout"
    assert second["outcome"] == "untried"
    assert second["error"] == f"(1 timed out before it, the first of them tcp from None to 127.0.0.1:{silent})"


def test_listener_that_has_outlived_its_time_is_said_without_a_traceback() -> None:
    control = json.loads(ask({"do": "listen", "listeners": [], "lifetime": 0}).stdout)["control"]
    done = ask({"do": "collect", "control": control})
    assert done.returncode != 0
    assert "the listener has ended by itself" in done.stderr
    assert "Traceback" not in done.stderr


def test_echo_says_how_large_the_packets_were() -> None:
    """The loopback has an MTU of 65536 bytes (drivers/net/loopback.c), which IPv4 packets do not reach."""
    listener = asdict(Listener("echo", address="127.0.0.1"))
    listening = json.loads(ask({"do": "listen", "listeners": [listener], "lifetime": 30}).stdout)
    attempts = [asdict(Attempt("echo", "127.0.0.1", listening["ports"][0]))]
    request = {"do": "attempt", "timeout": 5, "chain": None, "limit": 5, "patience": _FEW, "attempts": attempts}
    (outcome,) = json.loads(ask(request).stdout)
    (seen,) = json.loads(ask({"do": "collect", "control": listening["control"]}).stdout)
    assert outcome["outcome"] == "connected", outcome
    assert 1500 < int(bytes.fromhex(outcome["reply"]).decode()) <= 65536
    assert seen == [outcome["local"]]
