"""How a program of ours ends when it does not end well: what it says, its exit code, where a traceback lies."""

from __future__ import annotations

import errno
import logging
import os
import select
import shlex
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from underlay.errors import Exit, Problem, UnderlayError
from underlay.signals import stop_code

_log = logging.getLogger("underlay.ending")

#: Where tracebacks lie: of root here, on the workstation and on hosts; of others below their state directory
#: (XDG Base Directory Specification, $XDG_STATE_HOME).
ROOTS_TRACEBACKS = Path("/var/log/underlay")
STATE_VARIABLE = "XDG_STATE_HOME"
_STDOUT = 1
#: What a disk says that takes no more: no fault of ours, and nothing that trying again mends.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


def ending(error: BaseException, next_step: str = "run it again") -> int:
    """Say on standard error why the program ends, and return its exit code.

    A person's mistake is shown without a traceback, and so is a disk that is full. After a signal ``next_step`` says
    what goes on from here. Anything else is a fault of ours (70): one line, and a file with the traceback that its
    owner alone can read. Nothing is said when the reader of our output has gone away.
    """
    if isinstance(error, UnderlayError):
        for problem in error.problems:
            _say(f"error: {problem}")
        return int(error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        _say(f"interrupted; {next_step}")
        return stop_code(error)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        where = "" if error.filename is None else str(error.filename)
        hint = "see how much is left there (df -h), and make room"
        _say(f"error: {Problem(where, error.strerror or str(error), hint)}")
        return int(Exit.NOT_READY)
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        return 128 + signal.SIGPIPE
    _log.debug("the traceback", exc_info=error)
    import traceback

    text = "".join(traceback.format_exception(error))
    what = " ".join("".join(traceback.format_exception_only(error)).split())
    try:
        _say(f"error: unforeseen {what}; its traceback is in {_keep(text)}; please report it")
    except OSError as unkept:
        _say(f"{text}error: unforeseen {what}; please report it; no file could be made of its traceback ({unkept})")
    return int(Exit.UNFORESEEN)


def _say(text: str) -> None:
    with suppress(OSError):  # the terminal may be gone, which is why we end
        print(text, file=sys.stderr, flush=True)


def _nobody_reads() -> bool:
    """Whether the reader of our output has gone away (`... | head`); what is still to be flushed then goes nowhere."""
    stdout = select.poll()
    stdout.register(_STDOUT, 0)
    if not stdout.poll(0):  # poll(2): POLLERR is told of a pipe that nobody reads from
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
    return True


def _keep(text: str) -> Path:
    """Write a traceback, and what was done, into a new file of our own; OSError if there is no room for it."""
    import tempfile

    directory = _directory()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number, path = tempfile.mkstemp(prefix=f"{moment}-", suffix=".txt", dir=directory)
    with os.fdopen(number, "w", errors="backslashreplace") as file:
        file.write(f"{shlex.join(sys.orig_argv)}\nPython {sys.version}\n\n{text}")
    return Path(path)


def _directory() -> Path:
    state = os.environ.get(STATE_VARIABLE, "")
    if not state.startswith("/"):  # what is relative is to be ignored, says the specification
        if os.geteuid() == 0:
            return ROOTS_TRACEBACKS
        state = str(Path.home() / ".local/state")
    return Path(state, "underlay")
