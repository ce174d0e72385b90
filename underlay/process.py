"""The one place that starts programs: argument lists only, always with a time-out, always logged."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from underlay.errors import NotReady, Problem
from underlay.signals import Stopped

_log = logging.getLogger("underlay.process")

#: Characters of a failed program's output that are worth showing.
_TAIL = 2000
#: Seconds in which a killed program's output must have been read.
_DRAIN_S = 1.0
#: The kernel gives a program SIGINT when its starter ends, even by SIGKILL (prctl(2), PR_SET_PDEATHSIG).
_BOUND = ("setpriv", "--pdeathsig", "INT", "--")


@dataclass(frozen=True, slots=True)
class Completed:
    """What a program did: its arguments, exit code, output (text) and wall time in seconds."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the program exited with 0."""
        return self.returncode == 0


class ProgramFailed(NotReady):
    """A program ended with another exit code than 0; ``completed`` holds all of it."""

    def __init__(self, completed: Completed, where: str = "") -> None:
        self.completed = completed
        output = (completed.stderr.strip() or completed.stdout.strip())[-_TAIL:]
        super().__init__(
            _problem(where, f"`{shlex.join(completed.argv)}` ended with exit code {completed.returncode}", output)
        )


class ProgramTimedOut(NotReady):
    """A program did not end within its time-out and was killed with all its children."""

    def __init__(self, argv: Sequence[str], timeout: float, output: str, where: str = "") -> None:
        self.argv = tuple(argv)
        self.timeout = timeout
        super().__init__(
            _problem(where, f"`{shlex.join(argv)}` did not end within {timeout:g} s and was killed", output[-_TAIL:])
        )


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    check: bool = True,
    stdin: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    where: str = "",
    dry_run: bool = False,
) -> Completed:
    """Run a program to its end and return what it did.

    ``timeout`` is in seconds; at its end the program's whole process group is killed. ``stdin`` is text for its
    standard input, or a file (none: empty, never the terminal); it is never logged. ``env`` replaces the environment.
    ``where`` names the host or place for messages. With ``dry_run`` nothing starts and success is returned.

    Raises ProgramFailed (unless ``check`` is false), ProgramTimedOut, or NotReady when there is no such program.
    """
    line = shlex.join(argv)
    if dry_run:
        _log.info("would run: %s", line)
        return Completed(tuple(argv), 0, "", "", 0.0)
    started = time.monotonic()
    file = Path(os.devnull) if stdin is None else stdin
    with ExitStack() as stack:
        # What is in a file goes there without passing through here.
        source = stack.enter_context(file.open("rb")) if isinstance(file, Path) else subprocess.PIPE
        process = _start(argv, source, env, cwd, where)
    text = stdin if isinstance(stdin, str) else None
    with process:
        try:
            stdout, stderr = process.communicate(text, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            _kill_group(process)
            raise ProgramTimedOut(argv, timeout, _last_words(process), where) from error
        except BaseException:
            _kill_group(process)
            process.wait()  # leaving the `with` by Ctrl-C does not
            raise
    done = Completed(tuple(argv), process.returncode, stdout, stderr, time.monotonic() - started)
    _log.debug("%s -> %d in %.3f s", line, done.returncode, done.seconds)
    if check and not done.ok:
        raise ProgramFailed(done, where)
    return done


def attach(argv: Sequence[str], *, env: Mapping[str, str] | None = None, where: str = "", apart: bool = False) -> int:
    """Run a program on the caller's own terminal and streams; return its exit code (128 + signal if killed).

    For what a person started and ends (a shell, a followed log): it has no time-out, and Ctrl-C goes to it. Another
    signal that asks us to end is passed on, and raised when the program has ended.

    What runs ``apart`` hears nothing of the terminal, which would give Ctrl-C to it and to its children at once. Every
    such signal is Ctrl-C to it, and so is our own end, whatever ends us: it stops its children and tidies up.
    """
    words = (*_BOUND, *argv) if apart else tuple(argv)
    _log.debug("attach: %s", shlex.join(words))
    try:
        process = subprocess.Popen(words, env=None if env is None else dict(env), start_new_session=apart)
    except (FileNotFoundError, PermissionError) as error:
        raise _missing(words, where) from error
    stopped: KeyboardInterrupt | None = None
    ended: os.waitid_result | None = None
    with process:
        while ended is None or process.returncode is None:
            try:
                # Looked at before it is taken: a signal that comes just when the kernel hands an exit code over would
                # lose it, and Popen.wait would say 0.
                ended = ended or os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                process.wait()
            except KeyboardInterrupt as error:
                if apart:
                    stopped, number = error, int(signal.SIGINT)
                elif isinstance(error, Stopped):
                    stopped, number = error, int(error.number)
                else:
                    continue  # the program got the same Ctrl-C; its answer counts, not ours
                if ended is None:
                    os.kill(process.pid, number)  # Popen.send_signal would take the exit code of one that has ended
    if stopped is not None:
        raise stopped
    return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status


def _start(
    argv: Sequence[str], source: IO[bytes] | int, env: Mapping[str, str] | None, cwd: Path | None, where: str
) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            list(argv),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if env is None else dict(env),
            cwd=cwd,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError) as error:
        raise _missing(argv, where) from error


def _kill_group(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _last_words(process: subprocess.Popen[str]) -> str:
    """Return what a killed program said. A child that left its group keeps the pipe open, and is not waited for."""
    try:
        stdout, stderr = process.communicate(timeout=_DRAIN_S)
    except subprocess.TimeoutExpired as late:
        # Bytes in spite of text mode (Python's documentation of TimeoutExpired.output).
        return (late.stderr or late.stdout or b"").decode(errors="replace")
    return stderr or stdout


def _missing(argv: Sequence[str], where: str) -> NotReady:
    # A name that is nowhere in PATH is no FileNotFoundError if one of its directories may not be searched (execvp(3)).
    if "/" in argv[0] and Path(argv[0]).exists():
        return NotReady(Problem(where, f"the program `{argv[0]}` may not be run by you", "look at its mode and owner"))
    return NotReady(Problem(where, f"the program `{argv[0]}` is not installed", f"install what provides {argv[0]}"))


def _problem(where: str, what: str, output: str) -> Problem:
    return Problem(where, what, f"it said: {output}" if output else "it said nothing")
