"""What is mounted where, as the kernel tells it: the one reader of /proc/PID/mountinfo (proc_pid_mountinfo(5)).

The kernel writes a path as the bytes it is, but for space, tab, newline and backslash (and `#` in a source), which
stand as three octal digits (fs/proc_namespace.c). So a path may hold anything else: letters of any alphabet and any
encoding, and characters that Python, but not the kernel, takes for the end of a word or line. Bytes that are no UTF-8
become what os.fsdecode makes of them, so that paths can be compared with each other and given to the kernel again.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

#: The mounts of the calling process's mount namespace.
OWN = Path("/proc/self/mountinfo")
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")
#: Fields before the optional ones, which end with a hyphen.
_FIRST = 6


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount. Options are comma-separated words, as mount(8) shows them.

    ``device`` is "major:minor", ``root`` the part of the filesystem that is seen here ("net:[4026532202]" for a
    namespace), ``point`` where it is seen, ``kind`` the type of the filesystem, ``source`` what was mounted.
    """

    number: int
    parent: int
    device: str
    root: str
    point: Path
    options: str
    kind: str
    source: str
    super_options: str


def mounts(file: Path = OWN) -> tuple[Mount, ...]:
    """Return the mounts that a mountinfo file shows now, in the kernel's order: of two on one path the later is seen.

    ValueError if it is no such file; OSError if it cannot be read.
    """
    return parse(file.read_bytes())


def parse(content: bytes) -> tuple[Mount, ...]:
    """Return the mounts of a mountinfo file's content; ValueError, with the line, if it is something else."""
    return tuple(_mount(line) for line in content.split(b"\n") if line)


def _mount(line: bytes) -> Mount:
    fields = line.split(b" ")  # a source may be empty
    try:
        hyphen = fields.index(b"-", _FIRST)
        number, parent, device, root, point, options = fields[:_FIRST]
        kind, source, *super_options = fields[hyphen + 1 :]
        numbers = int(number), int(parent)
    except ValueError as error:
        raise ValueError(f"not a line of a mountinfo file: {line!r}") from error
    return Mount(
        *numbers,
        device=device.decode("ascii"),
        root=_path(root),
        point=Path(_path(point)),
        options=_path(options),
        kind=_path(kind),
        source=_path(source),
        super_options=_path(b" ".join(super_options)),  # each filesystem writes them as it likes
    )


def _path(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes((int(match[1], 8),)), field))
