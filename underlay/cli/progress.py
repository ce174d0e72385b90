"""Progress on the terminal: a bar where somebody looks, a line a step where nobody does."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Bar:
    """Shows steps and how far the present one is; use it in a ``with`` statement. It writes to stderr."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = Progress(
            SpinnerColumn(finished_text="+"),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._task: TaskID | None = None
        self._total = 0
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        self._live.stop()

    def step(self, text: str) -> None:
        """Begin a step; what was before it is done."""
        if not self._console.is_terminal:
            self._console.print(f"{time.monotonic() - self._started:7.1f} s  {text}", markup=False, highlight=False)
            return
        self._finish()
        self._task = self._live.add_task(text, total=None)

    def update(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` parts of the step are done."""
        if self._task is not None:
            self._total = total
            self._live.update(self._task, completed=done, total=total)

    def _finish(self) -> None:
        if self._task is not None:
            end = self._total or 1
            self._live.update(self._task, completed=end, total=end)
        self._task = None
        self._total = 0
