"""How long work tells a person what it is doing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Somewhere steps are shown: a progress bar, lines on standard error, or nowhere."""

    def step(self, text: str) -> None:
        """Say what is being done now, in a few words (``starting host1``). May be called from several threads."""
        ...


class Quiet:
    """Shows nothing."""

    def step(self, text: str) -> None:
        """Drop ``text``."""
