"""Files that outlive a power cut.

A file that was written and renamed may be empty after one: its name was on the disk before its contents (ext4's delayed
allocation). An empty file carries no mark, so the next converge would take it for somebody else's.
"""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Write a file, and return when its contents are on the disk (fsync(2))."""
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def keep_names(directory: Path) -> None:
    """Return when the names in a directory are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
