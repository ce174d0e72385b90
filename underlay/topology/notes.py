"""Noting mistakes: where, what, and a hint; and the words that messages are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Generic, TypeVar

from underlay.errors import InputError, Problem

#: More mistakes than a person will read; what follows them is not looked at.
MOST_PROBLEMS = 200

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,40}")
_SHOWN = 60

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Marked(Generic[T]):
    """A value and the line of the plan that it stands on."""

    value: T
    line: int


class Notes:
    """The mistakes found so far in one plan; ``source`` is the plan's name in messages."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: dict[Problem, int] = {}

    def add(self, line: int, what: str, hint: str) -> None:
        """Note a mistake once. Raises InputError with all of them when there are more than MOST_PROBLEMS."""
        self._found.setdefault(Problem(f"{self._source}:{line}", printable(what), printable(hint)), line)
        if len(self._found) > MOST_PROBLEMS:
            rest = Problem(
                self._source, f"more than {MOST_PROBLEMS} mistakes; the rest is not shown", "mend these first"
            )
            raise InputError(*self._sorted()[:MOST_PROBLEMS], rest)

    def finish(self) -> None:
        """Raise InputError with everything noted, in the order of lines; return if there is nothing."""
        if self._found:
            raise InputError(*self._sorted())

    def _sorted(self) -> list[Problem]:
        return sorted(self._found, key=self._found.__getitem__)


def printable(text: str) -> str:
    """Return the text with everything escaped that a terminal would act on or cannot show."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def show(text: str) -> str:
    """Return text from the plan in quotes, shortened and printable."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def suggest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return a hint naming the known word that comes closest, else listing the known ones, else ``otherwise``."""
    words = sorted(set(known))
    close = get_close_matches(word[:_SHOWN], words, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    if otherwise or not words:
        return otherwise or "there is none yet: add it first"
    return f"known: {', '.join(words[:10])}{', ...' if len(words) > 10 else ''}"


def join(path: str, key: str) -> str:
    """Return the dotted path of ``key`` below ``path``; a key that is no plain word is quoted."""
    word = key if _PLAIN.fullmatch(key) else show(key)
    return f"{path}.{word}" if path else word
