"""A question that is asked once, until its answer is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Once(Generic[Answer]):
    """A question that is asked once, until its answer is forgotten: many resources want the same one."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._answers: list[Answer] = []

    def answer(self) -> Answer:
        """Return the answer, asking if need be."""
        if not self._answers:
            self._answers.append(self._ask())
        return self._answers[0]

    def forget(self) -> None:
        """Ask again next time."""
        self._answers.clear()
