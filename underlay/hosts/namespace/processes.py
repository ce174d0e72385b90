"""Processes that cannot be mistaken for others: a number alone is used again by the kernel, so it is not enough."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
#: Fields of /proc/PID/stat after the command's closing parenthesis (proc(5) counts from 1; the state is field 3).
_STATE, _START = 3 - 3, 22 - 3


@dataclass(frozen=True, slots=True)
class Process:
    """A process of one boot of this machine; ``started`` is in clock ticks since that boot (proc(5), field 22)."""

    pid: int
    started: int
    boot: str


def boot_id() -> str:
    """Return the identity of this boot of the machine (random(4))."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> Process | None:
    """Return the process that has that number now, or None; a zombie counts as gone."""
    started = _started(pid)
    return None if started is None else Process(pid, started, boot_id())


def alive(process: Process) -> bool:
    """Whether that very process still runs."""
    return _started(process.pid) == process.started and boot_id() == process.boot


def kill(process: Process, *, deadline_s: float) -> bool:
    """Kill that very process (SIGKILL) and wait until it has ended; return whether it has within ``deadline_s``.

    True as well if it had ended before.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        # Checked after opening: from here on the descriptor can only mean this process (pidfd_open(2)).
        if not alive(process):
            return True
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        readable, _, _ = select.select([descriptor], [], [], deadline_s)
        return bool(readable)
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)


def all_pids() -> Iterator[int]:
    """All process numbers that /proc shows now."""
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            yield int(entry.name)


def command_of(pid: int) -> str:
    """Return the short name of a process for messages, or ``?`` when it is gone."""
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "?"


def namespace_of(pid: int, kind: str) -> int | None:
    """Return the inode of a process's namespace (``net``, ``mnt``, ...), or None when the process is gone."""
    try:
        return (_PROC / str(pid) / "ns" / kind).stat().st_ino
    except OSError:
        return None


def using_namespace(kind: str, inodes: frozenset[int]) -> tuple[int, ...]:
    """Return the processes that are in one of these namespaces."""
    return tuple(pid for pid in all_pids() if namespace_of(pid, kind) in inodes)


def _started(pid: int) -> int | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The command may hold spaces and parentheses, so the fields are counted from its last parenthesis.
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[_STATE] in {"Z", "X"} else int(fields[_START])
