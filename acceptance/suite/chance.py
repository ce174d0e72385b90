"""Chance that can be repeated: what was drawn is told by a seed, and an environment variable gives it again."""

from __future__ import annotations

import os
import random

#: Ports that nobody has asked for are drawn by it.
PORTS = "UNDERLAY_PORTS_SEED"


def seed(variable: str) -> int:
    """Return the seed that the variable holds, or a new one."""
    return int(os.environ.get(variable) or random.SystemRandom().randrange(2**32))


def drawn_by(number: int) -> random.Random:
    """Return a source of chance that draws the same for the same seed."""
    return random.Random(number)  # noqa: S311 - to repeat a run
