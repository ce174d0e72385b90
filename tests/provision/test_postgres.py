"""Questions to a real PostgreSQL over its socket, and to what is none."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from provision.kernel.network import Network
from provision.marks import Mark
from provision.postgres import ask
from provision.processes import frozen
from provision.resources.postgres import Database
from provision.resources.secret import PasswordFile
from provision.supervisor import Supervisor
from provision.system import System
from tests.services.real import program
from underlay.errors import NotReady
from underlay.topology import Timeouts
from underlay.wait import NotYet, until

AMPLE = 30.0
PORT = 5432
#: PostgreSQL does not run as root.
USER = "nobody" if os.geteuid() == 0 else None


def question(path: Path, statement: str, *, user: str = "postgres") -> str:
    return ask(path.parent, PORT, statement, user=user, database="postgres", timeout=AMPLE, where="here")


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    """The socket of a server that lets everybody in who is here, and asks a role `guarded` for a password."""
    missing = [name for name in ("initdb", "postgres") if program(name) is None]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="underlay-") as directory:
        place = Path(directory)
        if USER:
            shutil.chown(place, USER)
        initdb = [str(program("initdb")), "-D", "data", "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run(initdb, cwd=place, check=True, capture_output=True, user=USER)
        (place / "data/pg_hba.conf").write_text("local all guarded password\nlocal all all trust\n", encoding="utf-8")
        argv = [str(program("postgres")), "-D", "data", "-p", str(PORT), "-k", directory, "-c", "listen_addresses="]
        with (place / "log").open("ab") as log:
            running = subprocess.Popen(argv, cwd=place, stdout=log, stderr=log, user=USER)
        path = place / f".s.PGSQL.{PORT}"
        try:
            until(lambda: _answers(path), deadline_s=AMPLE, what="its answer")
            yield path
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(AMPLE)


def _answers(path: Path) -> bool | NotYet:
    try:
        return question(path, "SELECT 1") == "1"
    except NotReady as error:
        return NotYet(str(error))


def _hang_up(server: socket.socket) -> None:
    server.accept()[0].close()


@pytest.mark.parametrize(
    ("statement", "answer"),
    [
        ("SELECT 'ä'", "ä"),
        ("SELECT NULL", ""),
        ("SELECT 1 WHERE false", ""),
        ("SELECT", ""),
        ("SELECT 'first', 2 UNION ALL SELECT 'second', 3", "first"),
        ("SELECT repeat('x', 300000)", "x" * 300_000),
        ("", ""),
    ],
)
def test_first_value_is_the_answer(server: Path, statement: str, answer: str) -> None:
    assert question(server, statement) == answer


def test_what_the_server_refuses_is_told_in_its_words(server: Path) -> None:
    with pytest.raises(NotReady, match='here: PostgreSQL does not answer: relation "nothing" does not exist'):
        question(server, "SELECT * FROM nothing")
    with pytest.raises(NotReady, match='role "nobody-here" does not exist'):
        question(server, "SELECT 1", user="nobody-here")
    with pytest.raises(NotReady, match="no password supplied"):
        question(server, "SELECT 1", user="guarded")


def test_no_server_and_one_that_hangs_up_are_told(tmp_path: Path) -> None:
    path = tmp_path / f".s.PGSQL.{PORT}"
    with pytest.raises(NotReady, match=r"(?s)PostgreSQL does not answer: .*No such file"):
        question(path, "SELECT 1")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        hanging_up = Thread(target=_hang_up, args=(server,))
        hanging_up.start()
        with pytest.raises(NotReady, match=r"PostgreSQL does not answer: "):
            question(path, "SELECT 1")
        hanging_up.join()


def test_a_frozen_server_is_named_and_not_waited_for(server: Path, tmp_path: Path) -> None:
    timeouts = Timeouts(connect=1, command=AMPLE, ready=1, cache=1)
    mark = Mark("phase1", 1)
    system = System("host1", mark, timeouts, Network("host1"), Supervisor("host1", 1, tmp_path / "socket"))
    seal = PasswordFile(tmp_path / "password", "root", "product")
    database = Database("shop", server.parent, PORT, "SELECT 1", "program postgres-1", seal)
    pid = int(Path(f"{server}.lock").read_text(encoding="ascii").split()[0])

    def stopped() -> bool | NotYet:
        return bool(frozen(pid)) or NotYet("it goes on")

    os.kill(pid, signal.SIGSTOP)
    try:
        # The signal is sent, and the process stops when it is next on a processor.
        until(stopped, deadline_s=AMPLE, what="a server that stops", where="here")
        started = time.monotonic()
        assert database.observe(system) == "cannot be asked, its server is frozen"
        assert time.monotonic() - started < AMPLE / 2
    finally:
        os.kill(pid, signal.SIGCONT)
