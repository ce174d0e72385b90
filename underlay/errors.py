"""Errors that a person reads, and the exit code each one ends a command with.

Every message answers four questions: what was expected, what was seen, where, and what to do next.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command of Underlay."""

    GOOD = 0
    CHECK_FAILED = 1
    USAGE = 2
    NOT_READY = 3
    UNFORESEEN = 70
    """A fault of ours: EX_SOFTWARE of sysexits.h(3head)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake or obstacle.

    ``where`` is a place a reader can go to: ``topology.yaml:12``, ``host1``, ``host1/gateway-1``.
    ``what`` says what was seen and, unless it is plain, what was expected. ``hint`` says what to do next.
    """

    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}\n    hint: {self.hint}" if self.hint else line


class UnderlayError(Exception):
    """Base of all errors that are shown to a person without a traceback.

    It carries every problem found, not just the first one.
    """

    exit_code: Exit = Exit.NOT_READY

    def __init__(self, *problems: Problem) -> None:
        if not problems:
            raise ValueError("an error needs at least one problem")
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))

    @classmethod
    def of(cls, where: str, what: str, hint: str = "") -> UnderlayError:
        """Make an error of one problem."""
        return cls(Problem(where, what, hint))


class CheckFailed(UnderlayError):
    """A check gave the answer no (exit 1)."""

    exit_code = Exit.CHECK_FAILED


class InputError(UnderlayError):
    """The plan, an option or another input is wrong (exit 2)."""

    exit_code = Exit.USAGE


class NotReady(UnderlayError):
    """The lab or the machine is not in a state to answer (exit 3)."""

    exit_code = Exit.NOT_READY


class Unforeseen(UnderlayError):
    """A program of ours, on a host, ended by a fault of ours, and has said so (exit 70)."""

    exit_code = Exit.UNFORESEEN
