"""How long work tells a person what it is doing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Somewhere steps are shown: a progress bar, lines on standard error, or nowhere."""

    def step(self, text: str) -> None:
        """Say what is being done now, in a few words (``starting host1``); what was before it is done.

        May be called from several threads.
        """
        ...

    def update(self, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` parts of the present step are done; the unit is the step's own."""
        ...


class Quiet:
    """Shows nothing."""

    def step(self, text: str) -> None:
        """Drop ``text``."""

    def update(self, done: int, total: int) -> None:
        """Drop it."""
