"""What signals mean to a program of ours, whatever it was started by.

Ignored and blocked signals are inherited through fork and exec (signal(7)). A shell starts what runs in the background
with SIGINT ignored; and a program whose SIGCHLD is ignored never learns how its children ended (wait(2), NOTES).
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn


class Stopped(KeyboardInterrupt):
    """A signal asks this program to end: it unwinds as by Ctrl-C. ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def stop_code(error: KeyboardInterrupt) -> int:
    """Return the exit code of a program that a signal has ended: 128 and its number, as shells say it."""
    return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)


def usual_signals() -> None:
    """Give signals their usual meaning in this program, and in those that it starts.

    SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP raise Stopped in the main thread; the end of a child is noticed.
    Only SIGHUP stays ignored if it was: that is what nohup(1) is for. To be called at a program's start, by its main
    thread.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)
