"""Debian packages that a part of Underlay stands on: seen to be missing, and installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from underlay.errors import NotReady, Problem
from underlay.process import run
from underlay.progress import Progress

#: Seconds for the package manager: it downloads.
_INSTALL_S = 600.0


@dataclass(frozen=True, slots=True)
class Need:
    """A Debian package and why it is needed; ``sign`` shows that it is there.

    The sign is a program, or else a file's path as a pattern (pathlib's) that begins with a slash.
    """

    sign: str
    package: str
    why: str

    def is_met(self) -> bool:
        """Whether it is there."""
        if self.sign.startswith("/"):
            return any(Path("/").glob(self.sign.lstrip("/")))
        return shutil.which(self.sign, path=search_path()) is not None


def search_path() -> str:
    """Return where programs are looked for: ``su`` leaves root with a PATH that lacks the system's own."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def missing(needs: Iterable[Need]) -> tuple[Need, ...]:
    """Return what is not installed, each package once, with the first reason that was given for it."""
    found: dict[str, Need] = {}
    for need in needs:
        if not need.is_met():
            found.setdefault(need.package, need)
    return tuple(found.values())


def problems(needs: Iterable[Need]) -> list[Problem]:
    """Say of each of these packages that it is missing, why it is needed, and how to get it."""
    wanted = tuple(needs)
    hint = how(wanted)
    return [Problem("this machine", f"{need.package} is not installed: it {need.why}", hint) for need in wanted]


def how(needs: Iterable[Need]) -> str:
    """Say how to get these packages, as a hint."""
    apt = shutil.which("apt-get") is not None
    return (
        f"install it as root: {' '.join(_command(needs))}" if apt else "install it with this system's package manager"
    )


def install_missing(needs: Iterable[Need], progress: Progress, say: Callable[[str], None]) -> None:
    """Install what is missing with apt-get, saying what and why; NotReady if this machine has no apt or we no right."""
    wanted = missing(needs)
    if not wanted:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotReady(*problems(wanted))
    for need in wanted:
        say(f"installing {need.package}: it {need.why}")
    command = _command(wanted)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    progress.step(f"installing {', '.join(_names(wanted))}")
    if run(command, timeout=_INSTALL_S, check=False, env=environment).ok:
        return
    progress.step("updating the package lists")
    run(("apt-get", "update"), timeout=_INSTALL_S, env=environment)
    progress.step(f"installing {', '.join(_names(wanted))}")
    run(command, timeout=_INSTALL_S, env=environment)


def _names(needs: Iterable[Need]) -> list[str]:
    return sorted({need.package for need in needs})


def _command(needs: Iterable[Need]) -> tuple[str, ...]:
    return ("apt-get", "install", "--yes", "--no-install-recommends", *_names(needs))
