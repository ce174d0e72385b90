"""Runs commands for one caller, one after the other or at once: ``python3 -m provision.host.resident``.

Python's start and its imports cost more than most commands, on an emulated processor seconds. So a caller with many of
them starts this one process, in the environment and directory that a command would have, and speaks with it over its
standard input and output. What Python would run (``python3 -m MODULE``, ``python3 FILE``) runs in a fork of it, all
else is executed. It ends with its standard input, and ends with it what still runs.

What it has imported stays as it was when it started: a repository that is copied anew in the meantime is not seen.

A message is its length (8 bytes, big end first) and JSON: to it :class:`Request`, from it :class:`Answer`. The first
answer comes unasked, when it is ready; its ``id`` is 0.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypedDict

from underlay.phases import PHASES

#: What the commands of a session import, so that each finds it imported.
_WARM = ("provision.__main__", *(f"provision.{phase}" for phase in PHASES), "http.client", "psycopg", "xmlrpc.client")
_LENGTH = struct.Struct(">Q")
#: Bytes that are read, or written, at once: a pipe's (pipe(7)).
_AT_ONCE = 1 << 16
#: Seconds in which a killed command's output must have been read.
_DRAIN_S = 1.0
#: A shell's exit codes for what is not there, and for what cannot be executed (POSIX, "Exit Status for Commands").
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
#: Python's exit code when what it said could not be written at its end (pythonrun.c).
_UNWRITTEN = 120


class Request(TypedDict):
    """A command; ``stdin`` is text for it (None: empty), ``timeout`` in seconds, ``namespace`` one of `ip netns`."""

    id: int
    argv: list[str]
    stdin: str | None
    timeout: float
    namespace: str | None


class Answer(TypedDict):
    """How a command ended; ``code`` is negative for a signal, ``late`` whether it was killed at its time-out."""

    id: int
    code: int
    stdout: str
    stderr: str
    late: bool


@dataclass(slots=True)
class _Job:
    """A command under way. Its process is waited for last, so that until then nobody else's group has its number."""

    id: int
    pid: int
    ends: int
    deadline: float
    stdin: memoryview
    output: dict[int, bytearray]
    #: The pipes that are open.
    pipes: set[int] = field(default_factory=set)
    late: bool = False

    def kill(self) -> None:
        """Kill it and all its children that stayed in its group."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has none yet
            os.kill(self.pid, signal.SIGKILL)


class _Server:
    def __init__(self, requests: int, answers: int) -> None:
        self._requests = requests
        self._answers = answers
        self._read = bytearray()
        self._jobs: list[_Job] = []
        self._waiting = selectors.DefaultSelector()

    def serve(self) -> None:
        """Answer requests until there are no more."""
        self._waiting.register(self._requests, selectors.EVENT_READ)
        self._tell({"id": 0, "code": 0, "stdout": "", "stderr": "", "late": False})
        try:
            while self._turn():
                pass
        finally:
            for job in self._jobs:
                job.kill()

    def _turn(self) -> bool:
        """Do what can be done, waiting for the first; return whether there is more to come."""
        soonest = min((job.deadline for job in self._jobs), default=None)
        for key, _ in self._waiting.select(None if soonest is None else max(0.0, soonest - time.monotonic())):
            if key.fd == self._requests:
                if not self._receive():
                    return False
            elif key.fd in key.data.pipes:
                self._pass_on(key.data, key.fd)
            elif key.fd == key.data.ends:
                self._finish(key.data)
        now = time.monotonic()
        for job in [job for job in self._jobs if job.deadline <= now]:
            if job.late:  # somebody who left its group keeps a pipe open, and is not waited for
                self._finish(job)
            else:
                job.late, job.deadline = True, now + _DRAIN_S
                job.kill()
        return True

    def _receive(self) -> bool:
        data = os.read(self._requests, _AT_ONCE)
        self._read += data
        while len(self._read) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._read)[0]
            if len(self._read) < end:
                break
            request: Request = json.loads(self._read[_LENGTH.size : end])
            del self._read[:end]
            self._start(request)
        return bool(data)

    def _start(self, request: Request) -> None:
        inside = request["namespace"]
        argv = request["argv"] if inside is None else ["ip", "netns", "exec", inside, *request["argv"]]
        (out, out_there), (err, err_there) = os.pipe(), os.pipe()
        text = (request["stdin"] or "").encode()
        stdin_there, stdin = (os.open(os.devnull, os.O_RDONLY), -1) if not text else os.pipe()
        pid = os.fork()
        if pid == 0:
            _become(argv, stdin_there, out_there, err_there)
        for there in (stdin_there, out_there, err_there):
            os.close(there)
        deadline = time.monotonic() + request["timeout"]
        output = {out: bytearray(), err: bytearray()}
        job = _Job(request["id"], pid, os.pidfd_open(pid), deadline, memoryview(text), output)
        self._jobs.append(job)
        for pipe in (out, err, *([stdin] if text else [])):
            os.set_blocking(pipe, False)
            job.pipes.add(pipe)
            self._waiting.register(pipe, selectors.EVENT_WRITE if pipe == stdin else selectors.EVENT_READ, job)

    def _pass_on(self, job: _Job, pipe: int) -> None:
        if pipe in job.output:
            data = os.read(pipe, _AT_ONCE)
            job.output[pipe] += data
            done = not data
        else:
            try:
                job.stdin = job.stdin[os.write(pipe, job.stdin[:_AT_ONCE]) :]
            except BrokenPipeError:  # it does not want to know
                job.stdin = job.stdin[:0]
            done = not job.stdin
        if done:
            self._close(job, pipe)
            if not job.pipes:
                self._waiting.register(job.ends, selectors.EVENT_READ, job)

    def _close(self, job: _Job, pipe: int) -> None:
        self._waiting.unregister(pipe)
        os.close(pipe)
        job.pipes.discard(pipe)

    def _finish(self, job: _Job) -> None:
        for pipe in tuple(job.pipes):
            self._close(job, pipe)
        if job.ends in self._waiting.get_map():
            self._waiting.unregister(job.ends)
        os.close(job.ends)
        self._jobs.remove(job)
        code = os.waitstatus_to_exitcode(os.waitpid(job.pid, 0)[1])
        stdout, stderr = (_text(data) for data in job.output.values())
        self._tell({"id": job.id, "code": code, "stdout": stdout, "stderr": stderr, "late": job.late})

    def _tell(self, answer: Answer) -> None:
        data = json.dumps(answer).encode()
        left = memoryview(_LENGTH.pack(len(data)) + data)
        while left:
            left = left[os.write(self._answers, left) :]


def _text(data: bytearray) -> str:
    """Return what a program said as subprocess does in text mode."""
    return data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def _become(argv: list[str], *streams: int) -> NoReturn:
    """Be the command, in a child that was just forked."""
    code = _NOT_EXECUTABLE
    try:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        # The caller's requests, the answers, and the pipes of other commands.
        os.closerange(len(streams), os.sysconf("SC_OPEN_MAX"))
        gc.enable()
        match argv:
            case ["python3", "-m", module, *_]:
                code = _python(argv[2:], module=module)
            case ["python3", file, *_] if not file.startswith("-"):
                code = _python(argv[1:], module=None)
            case _:
                # Python ignores these two (pylifecycle.c); subprocess gives them back as well.
                for number in (signal.SIGPIPE, signal.SIGXFSZ):
                    signal.signal(number, signal.SIG_DFL)
                os.execvp(argv[0], argv)  # noqa: S606 - argument lists only
    except OSError as error:
        code = _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(code)


def _python(words: list[str], *, module: str | None) -> int:
    """Do what Python does when it is started with these words, and return its exit code."""
    code = 0
    sys.argv = words
    try:
        if module is None:
            if not sys.flags.safe_path:  # else the script's own directory is not looked into (-P)
                sys.path[0] = str(Path(words[0]).parent)
            runpy.run_path(words[0], run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # as Python's own last resort
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = _UNWRITTEN
    return code & 0xFF


def main() -> None:
    """Serve whoever started this, over the standard input and output that it gave."""
    requests, answers = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    for name in _WARM:
        importlib.import_module(name)
    # It is run, not imported.
    sys.modules.pop("provision.__main__")
    # A child that collects garbage would copy every page that it looks at.
    gc.disable()
    gc.freeze()
    _Server(requests, answers).serve()


if __name__ == "__main__":
    main()
