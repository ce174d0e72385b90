"""Prints the state of the host it runs on as JSON: what the kernel says, and the files that phases own.

Nothing but Python's standard library and the programs `ip`, `bridge`, `iptables-save`, `nft` and `ss`.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import stat
import subprocess
import sys
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from acceptance.inside import inside

#: Kernel parameters that are compared, below /proc/sys/net: a directory, and the files in it (None: all).
_SYSCTL = "/proc/sys/net"
#: Entries of forwarding tables that somebody has written, of bridges and of tunnels.
_TOLD = re.compile(" static| dst ")
_PARAMETERS = (("ipv4", None), ("ipv4/conf/*", None), ("ipv6/conf/*", ("disable_ipv6",)), ("bridge", None))
#: A key that the kernel makes up at each boot.
_OF_CHANCE = frozenset({"tcp_fastopen_key"})
#: Bytes of a parameter. The kernel clears a buffer of that size for each read (fs/proc/proc_sysctl.c).
_MOST = 4096
#: What ip(8) is asked of each place, in one run.
_QUESTIONS = ("address show", "route show table all", "rule show")
#: Places in which phases keep files; what lies there is compared whole.
_FILES = ("/etc/netns", "/etc/supervisor", "/etc/underlay", "/etc/resolv.conf", "/run/underlay", "/var/lib/underlay")
_NETNS, _DOCKER_NETNS = Path("/run/netns"), Path("/run/docker/netns")
#: What the network namespace of any container is called here.
CONTAINER = "(container)"
#: How the comment of a phase's users begins.
_USERS = "underlay "


def _output(*argv: str, stdin: str | None = None) -> str:
    # Whoever started this has a time-out for all of it, and kills what it started.
    return subprocess.run(argv, check=True, capture_output=True, text=True, input=stdin).stdout


def _json(*argv: str, stdin: str | None = None) -> list[object]:
    """Return all JSON values that a program prints, one after the other."""
    text, found, decoder = _output(*argv, stdin=stdin).strip(), [], json.JSONDecoder()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].lstrip()
    return found


def _parameters() -> dict[str, str]:
    found: dict[str, str] = {}
    for place, names in _PARAMETERS:
        top, each, _ = place.partition("/*")
        base = f"{_SYSCTL}/{top}"
        if not os.path.isdir(base):  # noqa: PTH112 - thousands of files, and pathlib takes ten times as long
            continue
        for directory in [f"{top}/{name}" for name in os.listdir(base)] if each else [top]:  # noqa: PTH208
            for name in names or os.listdir(f"{_SYSCTL}/{directory}"):  # noqa: PTH208
                text = None if name in _OF_CHANCE else _text(f"{_SYSCTL}/{directory}/{name}")
                if text is not None:
                    found[".".join(("net", *directory.split("/"), name))] = text
    return found


def _text(path: str) -> str | None:
    """Return what a parameter says, or None for a directory, or one that can only be written."""
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            return os.read(file, _MOST).decode().strip()
        finally:
            os.close(file)
    except (OSError, UnicodeError):
        return None


def _place(namespace: str | None) -> dict[str, object]:
    with inside(namespace):
        # Each question is answered with a list of its own. Routes of both protocols are shown; those of IPv6 alone have
        # a preference (RFC 4191).
        links, routes, policy = _json("ip", "-d", "-j", "-batch", "-", stdin="".join(f"{q}\n" for q in _QUESTIONS))
        assert isinstance(routes, list)
        return {
            "name": namespace,
            "links": links,
            "routes": [route for route in routes if "pref" not in route],
            "policy": policy,
            "parameters": _parameters(),
        }


def _places(names: list[str | None]) -> list[dict[str, object]]:
    """Look at the places in order, at as many at a time as there are processors: no lock of Python's is in the way."""
    count = min(os.cpu_count() or 1, len(names))
    children = [_begin(names[number::count]) for number in range(count)]
    found = {place["name"]: place for child in children for place in _end(*child)}
    return [found[name] for name in names]


def _begin(names: list[str | None]) -> tuple[int, int]:
    """Start looking at places in a child; return its number, and the pipe that it writes to."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    code = 1
    try:
        os.close(reader)
        with open(writer, "w") as answer:  # noqa: PTH123 - a pipe
            json.dump([_place(name) for name in names], answer)
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)


def _end(child: int, reader: int) -> list[dict[str, object]]:
    """Return what a child has seen. RuntimeError if it could not; it has said why."""
    with open(reader) as answer:
        text = answer.read()
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("a part of the host could not be looked at; see above")
    places: list[dict[str, object]] = json.loads(text)
    return places


def _files() -> Iterator[str]:
    for top in _FILES:
        yield from _file(top)
        for directory, folders, files in os.walk(top):
            for name in (*folders, *files):
                yield from _file(f"{directory}/{name}")


def _file(path: str) -> Iterator[str]:
    """Yield what a file is; nothing if it is not there, or has gone meanwhile."""
    try:
        there = os.lstat(path)
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if stat.S_ISREG(there.st_mode) else "-"
    except FileNotFoundError:
        return
    yield f"{path} {there.st_mode:o} {_user(there.st_uid)} {digest}"


def _listener(line: str) -> str:
    """Return what ss(8) says of a listener, but for its queues: what waits there is nobody's listener."""
    words = line.split()
    return " ".join((*words[:2], words[4]))


@cache
def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _processes(names: list[str]) -> Iterator[dict[str, object]]:
    """Yield each process: its words, its network namespace (None: the host's own), and whether its parent is in it too.

    A namespace that has lost its name, and lives on for a process in it, is called "(deleted)". A container's has none:
    Docker keeps it elsewhere.
    """
    known = {path.stat().st_ino: CONTAINER for path in _DOCKER_NETNS.glob("*")}
    known |= {(_NETNS / name).stat().st_ino: name for name in names}
    own = Path("/proc/self/ns/net").stat().st_ino
    found: dict[int, tuple[int, int, str]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(path.name)] = (parent, (path / "ns" / "net").stat().st_ino, words)
        except OSError:
            continue  # it has ended meanwhile
    for pid, (parent, inode, words) in found.items():
        if pid != os.getpid():
            namespace = None if inode == own else known.get(inode, "(deleted)")
            yield {"words": words, "namespace": namespace, "first": found.get(parent, (0, 0, ""))[1] != inode}


def main() -> None:
    """Print everything; with the word ``files`` also the files."""
    names = sorted(path.name for path in _NETNS.iterdir()) if _NETNS.is_dir() else []
    answer = {
        "places": _places([None, *names]),
        # After the links: a namespace is given its number when a link's peer in it is first shown.
        "namespace_ids": next(iter(_json("ip", "-j", "netns", "list")), []),
        "rules": _output("iptables-save", "-c"),
        "bridge_rules": _output("nft", "--stateless", "list", "ruleset", "bridge").splitlines(),
        "told": sorted(filter(_TOLD.search, _output("bridge", "fdb", "show").splitlines())),
        "listeners": sorted(_listener(line) for line in _output("ss", "-Hlntu").splitlines()),
        "processes": list(_processes(names)),
        "files": sorted(_files()) if "files" in sys.argv[1:] else [],
        "users": [entry.pw_name for entry in pwd.getpwall() if entry.pw_gecos.startswith(_USERS)],
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
