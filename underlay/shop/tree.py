"""What is done to a base's tree after its packages are unpacked: what their scripts would have done, and no more."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

_MASTERS = "usr/share/base-passwd"
#: Where people's texts are; of these the licences stay.
_DOCS = "usr/share/doc"
_LICENCE = "copyright"
#: Directories in which everybody may write.
_FOR_ALL = ("tmp", "var/tmp")
#: Copied from the building machine by mmdebstrap; Docker mounts its own over the first two.
_REWRITTEN = {"etc/hostname": "", "etc/resolv.conf": "", "etc/nsswitch.conf": "hosts: files dns\n"}
#: Gives a program the rights of its owner or group, whoever starts it.
_SPECIAL = stat.S_ISUID | stat.S_ISGID


def finish(tree: Path, dropped: Sequence[str]) -> None:
    """Give a tree its users, its shell and its places for temporary files; take out what is ``dropped`` (patterns)."""
    for name in ("passwd", "group"):
        shutil.copyfile(tree / _MASTERS / f"{name}.master", tree / "etc" / name)
    _write(tree / "etc/passwd", "".join(_locked(line) for line in (tree / "etc/passwd").read_text().splitlines()))
    for name, text in _REWRITTEN.items():
        _write(tree / name, text)
    shell = tree / "usr/bin/sh"
    if not shell.is_symlink():
        shell.symlink_to("dash")
    for path in (tree / _DOCS).rglob("*"):
        if not path.is_dir() and path.name != _LICENCE:
            path.unlink()
    for pattern in dropped:
        for path in tuple(tree.glob(pattern)):
            _remove(path)
    for name in _FOR_ALL:
        (tree / name).mkdir(parents=True, exist_ok=True)
        (tree / name).chmod(0o1777)
    take_special_rights(tree)


def take_special_rights(tree: Path) -> None:
    """Take the set-user-ID and set-group-ID bits from all programs: nobody in a container shall become another."""
    for folder, _, files in os.walk(tree):
        for name in files:
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode) and mode & _SPECIAL:
                path.chmod(stat.S_IMODE(mode) & ~_SPECIAL)


def _locked(line: str) -> str:
    """Return a line of passwd.master for a system in which nobody logs in."""
    fields = line.split(":")
    return ":".join([fields[0], "x", *fields[2:]]) + "\n"


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o644)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
