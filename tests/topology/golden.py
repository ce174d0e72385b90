"""Comparison with a file that holds what is expected."""

from __future__ import annotations

import os
from pathlib import Path


def compare(path: Path, seen: str) -> None:
    """Assert that the file holds ``seen``; with UNDERLAY_GOLDEN=write in the environment, write it instead."""
    if os.environ.get("UNDERLAY_GOLDEN") == "write":
        path.write_text(seen, encoding="utf-8")
    assert path.exists(), f"{path.name} is missing; write it with UNDERLAY_GOLDEN=write"
    assert seen == path.read_text(encoding="utf-8")
