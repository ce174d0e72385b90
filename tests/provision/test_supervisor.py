"""The client of supervisord, against a small server that speaks its protocol; and waiting until programs serve."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from provision import engine
from provision.kernel.network import Network
from provision.phase1 import MARK
from provision.resources.file import TextFile
from provision.resources.program import Probe, Program
from provision.supervisor import ProgramState, Supervisor
from provision.system import System
from tests.provision.supervisord import Programs, supervisord
from underlay.errors import Exit, NotReady
from underlay.topology import Timeouts

_LOCAL = IPv4Address("127.0.0.1")
_TIMEOUTS = Timeouts(connect=1, command=1, ready=1, cache=1)


@pytest.fixture
def programs() -> Programs:
    return Programs(known={"a-1": "RUNNING", "b-1": "FATAL"}, configured={"a-1", "b-1", "new-1"})


@pytest.fixture
def client(programs: Programs, tmp_path: Path) -> Iterator[Supervisor]:
    path = tmp_path / "supervisor.sock"
    with supervisord(path, programs):
        yield Supervisor("host1", 2, path)


def test_programs(client: Supervisor) -> None:
    assert client.programs() == {
        "a-1": ProgramState("RUNNING", 4711, "a-1 is running"),
        "b-1": ProgramState("FATAL", 0, "b-1 is fatal"),
    }


def test_program_is_added_and_started_without_waiting(client: Supervisor, programs: Programs) -> None:
    client.reload()
    client.add("new-1")
    client.start("new-1")
    assert programs.calls == ["reload", "add new-1", "start new-1 False"]
    assert client.programs()["new-1"].state == "RUNNING"


def test_program_is_stopped_awaited_and_forgotten(client: Supervisor, programs: Programs) -> None:
    programs.slowness = 3
    client.stop("a-1")
    client.stopped("a-1")
    assert programs.slowness == 0
    assert client.programs()["a-1"] == ProgramState("STOPPED", 0, "a-1 is stopped")
    client.forget("a-1")
    assert "a-1" not in client.programs()


def test_what_is_true_already_is_no_error(client: Supervisor) -> None:
    client.add("a-1")
    client.start("a-1")
    client.stop("b-1")
    client.stop("nobody")
    client.forget("nobody")
    client.stopped("nobody")


@pytest.mark.parametrize("call", [Supervisor.add, Supervisor.start], ids=["add", "start"])
def test_refusal_says_what_was_refused_and_why(client: Supervisor, call: Callable[[Supervisor, str], None]) -> None:
    with pytest.raises(NotReady) as caught:
        call(client, "nobody")
    (problem,) = caught.value.problems
    assert problem.where == "host1"
    assert "refused" in problem.what
    assert "BAD_NAME: nobody" in problem.what
    assert problem.hint


def test_program_that_does_not_end_is_named(programs: Programs, tmp_path: Path) -> None:
    path = tmp_path / "supervisor.sock"
    programs.slowness = 10**6
    with supervisord(path, programs):
        impatient = Supervisor("host1", 0.1, path)
        impatient.stop("a-1")
        with pytest.raises(NotReady, match=r"the end of a-1 .* last seen: a-1 is STOPPING"):
            impatient.stopped("a-1")


def test_without_a_supervisor_the_message_names_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.sock"
    with pytest.raises(NotReady) as caught:
        Supervisor("host1", 1, path).programs()
    assert caught.value.exit_code is Exit.NOT_READY
    (problem,) = caught.value.problems
    assert problem.where == "host1"
    assert "the supervisor does not answer" in problem.what
    assert str(path) in problem.hint


def test_an_answer_that_is_none_of_a_supervisors_is_told(tmp_path: Path) -> None:
    """One that asks for a password answers 401 with a page of HTML."""

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(401)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing: a unix socket has no client address to log."""

    path = tmp_path / "socket"
    with socketserver.UnixStreamServer(str(path), Refusing) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(NotReady, match="answers getAllProcessInfo with 401 Unauthorized") as caught:
            Supervisor("host1", 5, path).programs()
        thread.join()
    assert str(path) in caught.value.problems[0].hint


def test_silent_supervisor_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(NotReady, match="does not answer: timed out"):
            Supervisor("host1", 0.05, path).programs()


@contextmanager
def answering(status: int, body: str) -> Iterator[int]:
    """An HTTP server whose answer to GET /health is that; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with HTTPServer((str(_LOCAL), 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, so that nobody else gets it, and at which nobody answers."""
    with socket.socket() as taken:
        taken.bind((str(_LOCAL), 0))
        yield taken.getsockname()[1]


def test_ready_when_health_is_good() -> None:
    with answering(200, "fine") as port:
        assert Probe(_LOCAL, port, "/health").ask(2) is None
        assert Probe(_LOCAL, port).ask(2) is None


def test_not_ready_says_the_answer() -> None:
    with answering(503, '{"missing": "database"}') as port:
        assert Probe(_LOCAL, port, "/health").ask(2) == f'{_LOCAL}:{port}/health: 503 {{"missing": "database"}}'


@pytest.mark.parametrize("path", [None, "/health"])
def test_not_ready_when_nobody_listens(closed_port: int, path: str | None) -> None:
    said = Probe(_LOCAL, closed_port, path).ask(2)
    assert said is not None
    assert said.startswith(f"{_LOCAL}:{closed_port}{path or ''}: ")
    assert "refused" in said


def test_not_ready_when_the_answer_is_not_http() -> None:
    with socket.create_server((str(_LOCAL), 0)) as server:
        thread = threading.Thread(target=talk_nonsense, args=(server,))
        thread.start()
        said = Probe(_LOCAL, server.getsockname()[1], "/health").ask(2)
        thread.join()
    assert said is not None
    assert "/health: " in said


def talk_nonsense(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"220 mail.example ESMTP\r\n")


def system(socket_path: Path) -> System:
    timeouts = Timeouts(connect=1, command=2, ready=0.1, cache=1)
    return System("host1", MARK, timeouts, Network("host1"), Supervisor("host1", 2, socket_path))


def test_wait_ends_when_every_program_serves(client: Supervisor, tmp_path: Path) -> None:
    assert client.programs()
    with answering(200, "") as port:
        serving = Program("a-1", "a-1", "shop", ("a",), probe=Probe(_LOCAL, port, "/health"))
        silent = Program("dns", None, "root", ("dns",))
        engine.wait_until_ready((serving, silent), system(tmp_path / "supervisor.sock"))


def test_wait_names_the_programs_that_do_not_serve(client: Supervisor, tmp_path: Path, closed_port: int) -> None:
    assert client.programs()
    with answering(503, "no database") as port:
        resources = (
            Program("a-1", "a-1", "shop", ("a",), probe=Probe(_LOCAL, port, "/health")),
            Program("c-1", "c-1", "shop", ("c",), probe=Probe(_LOCAL, closed_port)),
        )
        with pytest.raises(NotReady) as caught:
            engine.wait_until_ready(resources, system(tmp_path / "supervisor.sock"))
    (problem,) = caught.value.problems
    assert problem.where == "host1"
    assert "program a-1: " in problem.what
    assert "503 no database (running)" in problem.what
    assert re.search(r"program c-1: .* \(not supervised\)", problem.what)
    assert "logs" in problem.hint


@pytest.mark.parametrize("state", ["RUNNING", "STARTING", "BACKOFF", "FATAL", "EXITED", "STOPPED", "STOPPING"])
def test_a_program_that_neither_runs_nor_starts_is_a_difference(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails again and again (BACKOFF) does not run, though its supervisor goes on trying."""
    program = Program("a-1", None, "root", ("a",))
    config = TextFile(tmp_path / "a-1.conf", program._text(MARK), owner=tmp_path.owner())
    config.path.write_text(config.text)
    monkeypatch.setattr(Program, "_config", lambda *_: config)
    path = tmp_path / "supervisor.sock"
    with supervisord(path, Programs(known={"a-1": state}, slowness=1)):
        here = System("host1", MARK, _TIMEOUTS, Network("host1"), Supervisor("host1", 2, path))
        seen = program.observe(here)
    well = None if state in {"RUNNING", "STARTING"} else f"is {state} (a-1 is {state.lower()})"
    assert seen == well
