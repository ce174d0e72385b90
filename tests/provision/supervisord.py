"""A small supervisord: XML-RPC over HTTP on a unix socket, as supervisor's documentation describes it."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from xmlrpc.client import Fault, dumps, loads

# supervisor/xmlrpc.py, class Faults
BAD_NAME, NOT_RUNNING, ALREADY_STARTED, SPAWN_ERROR, ALREADY_ADDED = 10, 70, 60, 50, 90


@dataclass(slots=True)
class Programs:
    """The programs that are looked after: their states by name; and those whose configuration can be added."""

    known: dict[str, str] = field(default_factory=dict)
    configured: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    #: How often a stopping program is still seen before it has ended.
    slowness: int = 0

    def getAllProcessInfo(self) -> list[dict[str, str | int]]:  # noqa: N802 - the protocol's name
        if self.slowness > 0:
            self.slowness -= 1
        else:
            self.known = {name: "STOPPED" if state == "STOPPING" else state for name, state in self.known.items()}
        return [
            {"name": name, "statename": state, "pid": 4711 if state in {"RUNNING", "STARTING", "STOPPING"} else 0,
             "description": f"{name} is {state.lower()}", "group": name, "start": 1}
            for name, state in self.known.items()
        ]  # fmt: skip

    def reloadConfig(self) -> list[list[list[str]]]:  # noqa: N802
        self.calls.append("reload")
        return [[sorted(self.configured), [], []]]

    def addProcessGroup(self, name: str) -> bool:  # noqa: N802
        self.calls.append(f"add {name}")
        if name in self.known:
            raise Fault(ALREADY_ADDED, f"ALREADY_ADDED: {name}")
        if name not in self.configured:
            raise Fault(BAD_NAME, f"BAD_NAME: {name}")
        self.known[name] = "STOPPED"
        return True

    def removeProcessGroup(self, name: str) -> bool:  # noqa: N802
        self.calls.append(f"forget {name}")
        if name not in self.known:
            raise Fault(BAD_NAME, f"BAD_NAME: {name}")
        del self.known[name]
        return True

    def startProcess(self, name: str, wait: bool) -> bool:  # noqa: N802
        self.calls.append(f"start {name} {wait}")
        if name not in self.known:
            raise Fault(BAD_NAME, f"BAD_NAME: {name}")
        if self.known[name] == "RUNNING":
            raise Fault(ALREADY_STARTED, f"ALREADY_STARTED: {name}")
        self.known[name] = "RUNNING"
        return True

    def stopProcess(self, name: str, wait: bool) -> bool:  # noqa: N802
        self.calls.append(f"stop {name} {wait}")
        if name not in self.known:
            raise Fault(BAD_NAME, f"BAD_NAME: {name}")
        if self.known[name] != "RUNNING":
            raise Fault(NOT_RUNNING, f"NOT_RUNNING: {name}")
        self.known[name] = "STOPPING"
        return True


class _Server(socketserver.UnixStreamServer):
    programs: Programs

    def answer(self, body: bytes) -> bytes:
        arguments, method = loads(body)
        assert method is not None
        try:
            return dumps(
                (getattr(self.programs, method.removeprefix("supervisor."))(*arguments),), methodresponse=True
            ).encode()
        except Fault as fault:
            return dumps(fault).encode()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = server.answer(body) if self.path == "/RPC2" else b"not here"
        self.send_response(200 if self.path == "/RPC2" else 404)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: a unix socket has no client address to log."""


@contextmanager
def supervisord(path: Path, programs: Programs) -> Iterator[None]:
    """Serve at ``path`` while the context lasts."""
    with _Server(str(path), _Handler) as server:
        server.programs = programs
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
