"""Files that are replaced whole, or not at all, and that outlive a power cut.

A file that was written and renamed may be empty after one: its name was on the disk before its contents (ext4's delayed
allocation). An empty file carries no mark, so the next converge would take it for somebody else's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def draft(path: Path) -> Path:
    """Return where a file's next version is written: beside it, under a name that only depends on the file's.

    A run that was killed may leave one. The next :func:`replace` begins it anew, :func:`remove` takes it away.
    """
    return path.with_name(f".{path.name}.new")


def of_draft(draft: Path) -> Path:
    """Return the file that a draft is the next version of."""
    return draft.with_name(draft.name.removeprefix(".").removesuffix(".new"))


def replace(
    path: Path,
    content: str | bytes,
    *,
    mode: int = 0o644,
    owner: tuple[int, int] | None = None,
    keep_name: bool = True,
) -> None:
    """Give a file this content (text as UTF-8), mode and owner (user and group) in one step.

    A reader, or a power cut, finds the old file or the new one, and nobody reads more of either than its mode allows.
    When this returns, the new one outlives a power cut. Without ``keep_name`` the old one may come back: it is for many
    files, whose names then last together after :func:`keep_names` or sync(2). Who replaces the same file from several
    processes has to lock it. Raises OSError.
    """
    new = draft(path)
    new.unlink(missing_ok=True)  # what a killed run left, which somebody may hold open
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with _told(path), os.fdopen(descriptor, "wb") as file:
            if owner is not None:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)  # after the owner, whose change takes bits away (chown(2))
            _fill(file, content)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)  # a disk that is full is not made fuller
        raise
    if keep_name:
        keep_names(path.parent)


def overwrite(path: Path, content: str | bytes) -> None:
    """Write a file that must stay the one it is (it is mounted elsewhere), and return when it is on the disk.

    A reader, or a power cut, may find half of it.
    """
    with _told(path), path.open("wb") as file:
        _fill(file, content)


def remove(path: Path) -> None:
    """Remove a file and its draft; no error if there is none."""
    for there in (draft(path), path):
        there.unlink(missing_ok=True)


def keep_names(directory: Path) -> None:
    """Return when the names in a directory are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Have an error of writing name the file; write(2) and fsync(2) know none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _fill(file: BinaryIO, content: str | bytes) -> None:
    file.write(content.encode() if isinstance(content, str) else content)
    file.flush()
    os.fsync(file.fileno())
