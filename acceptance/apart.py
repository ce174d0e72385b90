"""Prints, as JSON, what each user that services run as can read of the others, and what its processes may do.

Runs on a host, as root; its input is an object of the network namespaces' paths by name.

Nothing but Python's standard library. Each user is tried in a process of its own that has become it for good.
"""

from __future__ import annotations

import json
import os
import pwd
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

#: Capabilities (capabilities(7)), whether none can be won (PR_SET_NO_NEW_PRIVS), and groups besides the first one.
_RIGHTS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Gid", "Groups")
#: Where the lab keeps files on a host.
#: Where names are not those of files.
_NOT_FILES = frozenset({"/proc", "/sys"})
_PLACES = ("/etc/underlay", "/run/underlay", "/var/lib/underlay")
#: How a process is called that is about to become a container's: still root, and still the runtime's program (runc).
_RUNTIME = "runc"


def _processes(spaces: dict[str, str]) -> dict[str, dict[int, int]]:
    """Return the processes in each network namespace, given by its path, with the user that they run as."""
    known = {Path(path).stat().st_ino: name for name, path in spaces.items()}
    found: dict[str, dict[int, int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name, owner = known.get((path / "ns" / "net").stat().st_ino), path.stat().st_uid
            begins = (path / "comm").read_text().startswith(_RUNTIME)
        except OSError:
            continue  # it has ended meanwhile
        if name is not None and not begins:
            found.setdefault(name, {})[int(path.name)] = owner
    return found


def _rights(pid: int) -> dict[str, str]:
    """Return what a process may do beyond its user: the words of proc_pid_status(5), and its supplementary groups."""
    try:
        lines = [line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    except OSError:
        return {}  # it has ended meanwhile
    return {name: " ".join(value.split()) for name, _, value in lines if name in _RIGHTS}


def _private_files() -> Iterator[tuple[str, int]]:
    """Yield each file that is meant for its owner alone, and the owner."""
    for top in _PLACES:
        for directory, _, names in os.walk(top):
            for name in names:
                there = os.lstat(f"{directory}/{name}")
                if stat.S_ISREG(there.st_mode) and not there.st_mode & 0o077:
                    yield f"{directory}/{name}", there.st_uid


def _enterable(there: os.stat_result, users: set[int]) -> bool:
    """Whether somebody else than root can come to what is in a directory."""
    owned, shared = there.st_uid in users, there.st_gid in {_group(number) for number in users}
    return owned or bool(there.st_mode & (0o011 if shared else 0o001))


def _writable(users: dict[int, int]) -> dict[int, list[str]]:
    """Return the files and directories that each user may write, by its number and its group; the uppermost ones.

    What all may write is in the list of number -1.
    """
    found: dict[int, set[str]] = {number: set() for number in (*users, -1)}
    for directory, folders, names in os.walk("/"):
        if directory in _NOT_FILES:
            folders.clear()
            continue
        for name in (*folders, *names):
            path = f"{directory.rstrip('/')}/{name}"
            there = os.lstat(path) if os.path.lexists(path) else None
            if there is None or not (stat.S_ISDIR(there.st_mode) or stat.S_ISREG(there.st_mode)):
                continue
            mode = there.st_mode
            who = [number for number in users if number == there.st_uid and mode & 0o200]
            who += [number for number, group in users.items() if group == there.st_gid and mode & 0o020]
            who += [-1] if mode & 0o002 else []
            for number in who:
                found[number].add(path)
            if name in folders and (who or not _enterable(there, set(users))):
                folders.remove(name)
    return {number: sorted(paths) for number, paths in found.items()}


def _readable(paths: list[str]) -> list[str]:
    found = []
    for path in paths:
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - many of them
                file.read(1)
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue  # not for this user, or it has ended meanwhile
        except OSError:
            pass  # memory that begins with no page: it was opened
        found.append(path)
    return found


def _group(number: int) -> int:
    """Return the group of a user; one that the host does not know is of images, where its group has its number."""
    return pwd.getpwuid(number).pw_gid if _is_known(number) else number


def _is_known(number: int) -> bool:
    return any(entry.pw_uid == number for entry in pwd.getpwall())


def _as_user(number: int, paths: list[str]) -> list[str]:
    """Return which paths the user can read, tried in a process that has become it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        group = _group(number)
        if _is_known(number):
            os.initgroups(pwd.getpwuid(number).pw_name, group)
        else:  # a user of images alone has no other groups
            os.setgroups([group])
        os.setresgid(group, group, group)
        os.setresuid(number, number, number)
        with os.fdopen(writing, "w") as out:
            json.dump(_readable(paths), out)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    found: list[str] = json.loads(text)
    return found


def main() -> None:
    """Print the processes and their rights, the private files, and what each user can read of either."""
    processes, files = _processes(json.load(sys.stdin)), dict(_private_files())
    rights = {pid: found for each in processes.values() for pid in each if (found := _rights(pid))}
    # A health check, say, ends soon.
    processes = {name: {pid: owner for pid, owner in each.items() if pid in rights} for name, each in processes.items()}
    pids = list(rights)
    paths = [*files, *(f"/proc/{pid}/{what}" for pid in pids for what in ("environ", "mem"))]
    users = sorted({owner for each in processes.values() for owner in each.values()} - {0})
    json.dump(
        {
            "processes": processes,
            "rights": rights,
            "files": files,
            "writable": _writable({number: _group(number) for number in users}),
            "readable": {number: _as_user(number, paths) for number in users},
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
