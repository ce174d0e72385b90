"""Waiting for something to become true: always with a deadline, never with a fixed pause.

This is the only place of Underlay that may pause.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from underlay.errors import NotReady, Problem

T = TypeVar("T")
#: How much longer a pause that grows is than the one before: an answer is late by a third of its time at most.
_GROWTH = 1.5


@dataclass(frozen=True, slots=True)
class NotYet:
    """A probe's answer "not yet"; ``seen`` says what was seen instead, for the message if time runs out."""

    seen: str


def until(
    probe: Callable[[], T | NotYet],
    *,
    deadline_s: float,
    what: str,
    where: str = "",
    hint: str = "",
    interval: float = 0.02,
    slowest: float | None = None,
) -> T:
    """Ask ``probe`` again and again until it answers with something other than NotYet, and return that.

    ``deadline_s`` and ``interval`` (the pause between two questions) are in seconds. ``what`` names what is awaited
    and stands in the message as "<what> did not happen within 5 s". The probe is asked at least once, and once more
    at the deadline, so that a short stall of this process is not taken for a failure of the thing awaited. With
    ``slowest`` (seconds) the pauses grow up to that: for what needs the processor that a question takes.

    Raises NotReady with the last thing seen. What the probe itself raises is passed on.

    >>> until(lambda: 42, deadline_s=1, what="an answer")
    42
    """
    deadline = time.monotonic() + deadline_s
    pause = interval
    while True:
        late = time.monotonic() >= deadline
        answer = probe()
        if not isinstance(answer, NotYet):
            return answer
        if late:
            raise NotReady(
                Problem(where, f"{what} did not happen within {deadline_s:g} s; last seen: {answer.seen}", hint)
            )
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        if slowest is not None:
            pause = min(pause * _GROWTH, slowest)
