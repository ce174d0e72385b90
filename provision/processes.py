"""Processes of a program as the kernel shows them, and those of them that a signal has stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: proc_pid_stat(5): stopped by a signal. One that a debugger holds is "t", and the debugger's business.
_STOPPED = "T"


def frozen(pid: int) -> tuple[int, ...]:
    """Return those of a process and its descendants that a signal (SIGSTOP, say) has stopped; it may have ended."""
    return tuple(member for member in family(pid) if _state(member) == _STOPPED)


def halted(pid: int) -> str | None:
    """Return that a signal has stopped a process, or one of its descendants, in words; None if none is."""
    found = frozen(pid) if pid else ()
    return f"is frozen: a signal has stopped {', '.join(map(str, found))}" if found else None


def thaw(pid: int) -> None:
    """Let a process and its descendants go on; no error for one that has ended."""
    for member in frozen(pid):
        with suppress(ProcessLookupError):
            os.kill(member, signal.SIGCONT)


def family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants; nothing if it has ended."""
    try:
        said = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return
    yield pid
    for child in said.split():
        yield from family(int(child))


def _state(pid: int) -> str | None:
    try:
        said = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in brackets and may hold any character, brackets among them.
    return said.rpartition(")")[2].split()[0]
