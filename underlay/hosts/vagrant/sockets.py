"""Where the sockets of shared SSH connections lie: in a short directory of this user's (see ssh.py)."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from underlay.errors import NotReady, Problem

_SOCKETS = f"underlay-{os.geteuid()}-"


def socket_directory(machines: Mapping[str, str]) -> Path:
    """Return the short directory for the sockets of shared connections to exactly these machines."""
    digest = hashlib.sha256(" ".join(sorted(machines.values())).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"{_SOCKETS}{digest}"


def all_socket_directories() -> list[Path]:
    """Return those that are there, of whatever checkout of this user."""
    return sorted(Path(tempfile.gettempdir()).glob(f"{_SOCKETS}*"))


def make_sockets(directory: Path) -> None:
    """Make such a directory; NotReady if it cannot be, or if it is somebody else's."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise NotReady(Problem(str(directory), f"it cannot be made: {error.strerror}", "make it possible")) from error
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise NotReady(Problem(str(directory), "it must be yours alone", "remove it"))
