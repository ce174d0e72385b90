"""Prints, as JSON, the files that hold secrets, and every place of the host where one of the secrets can be read.

Runs on a host, as root; its input is a list of the secrets' files and directories. Python's standard library alone.
"""

from __future__ import annotations

import json
import os
import pwd
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

#: Where settings, logs, run-time files and what programs leave when they crash lie (core(5), tmpfiles.d(5)).
_PLACES = ("/etc", "/home", "/root", "/run", "/tmp", "/var/crash", "/var/lib/underlay", "/var/log", "/var/tmp",
           "/var/lib/systemd/coredump")  # fmt: skip
#: Bytes that are looked at at once, and bytes of the shortest thing that is a secret.
_AT_ONCE, _SHORTEST = 1 << 20, 16


def _files(top: str) -> Iterator[str]:
    if stat.S_ISREG(_mode(top)):
        yield top
    for directory, _, names in os.walk(top):
        yield from (path for name in names if stat.S_ISREG(_mode(path := f"{directory}/{name}")))


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0  # it is gone


def _holds(path: str, secrets: list[bytes]) -> bool:
    overlap, before = max(map(len, secrets)), b""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - many of them
            while data := file.read(_AT_ONCE):
                if any(secret in before + data for secret in secrets):
                    return True
                before = data[-overlap:]
    except OSError:
        pass
    return False


def _name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)  # of a user of images alone


def main() -> None:
    """Print the files of the secrets with their modes and owners, and where else one of them is."""
    paths = [path for top in json.load(sys.stdin) for path in _files(top)]
    secrets = [value for path in paths if len(value := Path(path).read_bytes().strip()) >= _SHORTEST]
    places = [path for top in _PLACES for path in _files(top) if path not in paths]
    places += [f"/proc/{pid}/{what}" for pid in os.listdir("/proc") if pid.isdigit() for what in ("cmdline", "environ")]  # noqa: PTH208
    found = {path: os.stat(path) for path in paths}  # noqa: PTH116
    json.dump(
        {
            "files": {path: [there.st_mode & 0o7777, _name(there.st_uid)] for path, there in found.items()},
            "secrets": len(set(secrets)),
            "looked_at": len(places),
            "leaks": [path for path in places if secrets and _holds(path, secrets)],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
