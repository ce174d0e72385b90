"""A lab whose hosts are asked through a helper that stays on each of them: for a caller with many commands.

The helper (``provision.host.resident``) is started over the connection that a command would take, and ends with it. It
runs commands as the host would by itself, only sooner; all else a host is asked for goes to the host itself.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shlex
import signal
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import TypedDict

from underlay.errors import NotReady, Problem
from underlay.hosts.base import Host, Lab, Outside
from underlay.process import Completed, ProgramFailed, ProgramTimedOut
from underlay.topology import Plan, Timeouts

_log = logging.getLogger("underlay.resident")

#: What is started on a host.
HELPER = ("python3", "-m", "provision.host.resident")
_LENGTH = struct.Struct(">Q")
#: Seconds that the helper takes to kill a command, to read its last words, and to say so.
_GRACE_S = 10.0
#: Seconds that the helper may take to end once nobody speaks with it any more.
_CLOSE_S = 5.0
#: Bytes of what it said at its end that are worth showing.
_TAIL = 2000


class _Answer(TypedDict):
    """What the helper says; see there."""

    id: int
    code: int
    stdout: str
    stderr: str
    late: bool


class _Broken(Exception):
    """The helper has ended, or does not answer; its last words."""


class _Connection:
    """A helper that runs, and what it was asked and has not answered yet."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the rest
        (requests_there, requests), (answers, answers_there) = os.pipe(), os.pipe()
        self._requests, self._answers = os.fdopen(requests, "wb", 0), os.fdopen(answers, "rb", 0)
        try:
            self._process = subprocess.Popen(
                list(argv),
                stdin=requests_there,
                stdout=answers_there,
                stderr=self._said,
                start_new_session=True,  # Ctrl-C is the caller's
            )
        except FileNotFoundError as error:
            for file in (self._said, self._requests, self._answers):
                file.close()
            raise _Broken(str(error)) from None
        finally:
            os.close(requests_there)
            os.close(answers_there)
        #: Of what is waited for, and of writing: whoever writes may have to wait until an answer was read.
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._waiting: dict[int, Future[_Answer]] = {0: Future()}
        self._last = 0
        self._over = False
        self._ready = self._waiting[0]
        self._reader = threading.Thread(target=self._read, name="resident", daemon=True)
        self._reader.start()

    def ready(self, timeout: float) -> None:
        """Wait until it answers. Raises _Broken."""
        try:
            self._ready.result(timeout)
        except Late:
            raise _Broken(f"it did not begin within {timeout:g} s") from None

    def ask(self, request: Mapping[str, object], patience: float) -> _Answer:
        """Return the answer to a request; raises _Broken, and Late if none came within ``patience`` seconds."""
        answer: Future[_Answer] = Future()
        with self._lock:
            if self._over:
                raise _Broken(self._last_words())
            self._last += 1
            number = self._last
            self._waiting[number] = answer
        data = json.dumps({**request, "id": number}).encode()
        try:
            with self._writing:
                self._write(_LENGTH.pack(len(data)) + data)
        except (OSError, ValueError):  # it has ended, or was closed
            with self._lock:
                self._waiting.pop(number, None)
                raise _Broken(self._last_words()) from None
        return answer.result(patience)

    def close(self) -> None:
        """End it, and with it what it still runs."""
        with self._writing:
            self._requests.close()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join()
        self._answers.close()
        self._said.close()

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._requests.write(left) :]

    def _read(self) -> None:
        while head := _exactly(self._answers, _LENGTH.size):
            body = _exactly(self._answers, _LENGTH.unpack(head)[0])
            if not body:
                break
            answer: _Answer = json.loads(body)
            with self._lock:
                waiting = self._waiting.pop(answer["id"])
            waiting.set_result(answer)
        with self._lock:
            self._over = True
            left, said = tuple(self._waiting.values()), self._last_words()
            self._waiting.clear()
        for future in left:
            future.set_exception(_Broken(said))

    def _last_words(self) -> str:
        if self._said.closed:
            return ""
        file = self._said.fileno()
        begin = max(0, os.fstat(file).st_size - _TAIL)
        return os.pread(file, _TAIL, begin).decode(errors="replace").strip()  # it goes on writing where it was


def _begin(argv: Sequence[str], timeout: float) -> _Connection:
    """Return a helper that is ready. Raises _Broken."""
    connection = _Connection(argv)
    try:
        connection.ready(timeout)
    except BaseException:
        connection.close()
        raise
    return connection


def _exactly(pipe: io.FileIO, size: int) -> bytes:
    """Read so many bytes; none at the end of the pipe, even in the middle of a message."""
    parts, left = [], size
    while left:
        part = pipe.read(min(left, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


class ResidentHost:
    """A host, whose commands run through a helper there. It is started at first use, and again after a power cut."""

    def __init__(self, host: Host, command_s: float) -> None:
        self._host = host
        self._command_s = command_s
        self._lock = threading.Lock()
        self._connection: _Connection | None = None

    @property
    def name(self) -> str:
        """The host's name in the plan."""
        return self._host.name

    @property
    def address(self) -> IPv4Address:
        """The address on the underlay."""
        return self._host.address

    @property
    def timeouts(self) -> Timeouts:
        """The plan's, with the patience that this kind of machine needs."""
        return self._host.timeouts

    def argv(self, command: Sequence[str], *, namespace: str | None = None, tty: bool = False) -> tuple[str, ...]:
        """Return the argument list that runs ``command`` there, without the helper."""
        return self._host.argv(command, namespace=namespace, tty=tty)

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float | None = None,
        check: bool = True,
        stdin: str | None = None,
        namespace: str | None = None,
    ) -> Completed:
        """Run ``command`` there to its end; see ``base.Machine``.

        NotReady if the connection breaks meanwhile: nobody knows then what became of the command.
        """
        limit = self._command_s if timeout is None else timeout
        where = self.name if namespace is None else f"{self.name}/{namespace}"
        words = tuple(command)
        request = {"argv": words, "stdin": stdin, "timeout": limit, "namespace": namespace}
        connection = self._connected()
        started = time.monotonic()
        try:
            answer = connection.ask(request, limit + _GRACE_S)
        except Late:
            self._drop(connection)
            raise ProgramTimedOut(words, limit, "", where) from None
        except _Broken as broken:
            self._drop(connection)
            raise self._why(broken, words) from None
        if answer["late"]:
            raise ProgramTimedOut(words, limit, answer["stderr"] or answer["stdout"], where)
        seconds = time.monotonic() - started
        _log.debug("%s: %s -> %d in %.3f s", where, shlex.join(words), answer["code"], seconds)
        done = Completed(words, answer["code"], answer["stdout"], answer["stderr"], seconds)
        if check and not done.ok:
            raise ProgramFailed(done, where)
        return done

    def running(self) -> bool:
        """Whether the host is up."""
        return self._host.running()

    def power_off(self) -> None:
        """Cut the power; see ``base.Host``."""
        self._host.power_off()
        self.close()

    def power_on(self) -> None:
        """Boot the host again; see ``base.Host``. It may drop the connection that the helper came by."""
        self.close()
        self._host.power_on()

    def facts(self) -> Mapping[str, str]:
        """Return what the host says of itself; see ``base.Host``."""
        return self._host.facts()

    def close(self) -> None:
        """End the helper; no error if there is none."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> _Connection:
        with self._lock:
            if self._connection is None:
                try:
                    self._connection = _begin(self._host.argv(HELPER), self._command_s + _GRACE_S)
                except _Broken as broken:
                    raise self._why(broken, HELPER) from None
            return self._connection

    def _drop(self, connection: _Connection) -> None:
        with self._lock:
            if self._connection is not connection:
                return  # another command has noticed
            self._connection = None
        connection.close()

    def _why(self, broken: _Broken, command: Sequence[str]) -> NotReady:
        """Return what the host itself says of why it does not answer; if it does answer, what happened."""
        try:
            self._host.run(("true",))
        except NotReady as error:
            return error
        what = f"the connection broke while `{shlex.join(command)}` ran"
        return NotReady(Problem(self.name, what, f"it said: {broken}" if str(broken) else "it said nothing"))


class ResidentLab:
    """A lab, whose hosts are asked through helpers."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        limit = lab.plan.timeouts.command
        self._hosts = MappingProxyType({name: ResidentHost(host, limit) for name, host in lab.hosts.items()})

    @property
    def kind(self) -> str:
        """The kind of its hosts; see ``base.Lab``."""
        return self._lab.kind

    @property
    def plan(self) -> Plan:
        """The plan that is up; see ``base.Lab``."""
        return self._lab.plan

    @property
    def recorded(self) -> Plan:
        """The plan on record; see ``base.Lab``."""
        return self._lab.recorded

    def obstacle(self, plan: Plan) -> Problem | None:
        """Say why the lab cannot take another plan as it is; see ``base.Lab``."""
        return self._lab.obstacle(plan)

    def take(self, plan: Plan) -> Lab:
        """Put another plan on record; see ``base.Lab``. What is returned has hosts without helpers."""
        return self._lab.take(plan)

    @property
    def hosts(self) -> Mapping[str, ResidentHost]:
        """The hosts by name, in the plan's order."""
        return self._hosts

    @property
    def outside(self) -> Outside:
        """The machine that the tests run on."""
        return self._lab.outside

    def close(self) -> None:
        """End all helpers."""
        for host in self._hosts.values():
            host.close()
