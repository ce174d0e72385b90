"""Prints the state of the host it runs on as JSON: what the kernel says, and the files that phases own.

Nothing but Python's standard library and the programs `ip`, `iptables-save` and `ss`.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from acceptance.probe import inside

#: Kernel parameters that are compared, below /proc/sys/net.
_PARAMETERS = ("ipv4/*", "ipv4/conf/*/*", "ipv6/conf/*/disable_ipv6", "bridge/*")
#: Places in which phases keep files; what lies there is compared whole.
_FILES = ("/etc/netns", "/etc/supervisor", "/etc/underlay", "/etc/resolv.conf", "/run/underlay", "/var/lib/underlay")
_NETNS = Path("/run/netns")


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=20).stdout


def _json(*argv: str) -> object:
    text = _output(*argv).strip()
    return json.loads(text) if text else []


def _parameters() -> dict[str, str]:
    found: dict[str, str] = {}
    top = Path("/proc/sys/net")
    for pattern in _PARAMETERS:
        for path in top.glob(pattern):
            try:
                found[".".join(("net", *path.relative_to(top).parts))] = path.read_text().strip()
            except (OSError, UnicodeError):
                continue  # a directory, or a parameter that can only be written
    return found


def _place(namespace: str | None) -> dict[str, object]:
    with inside(namespace):
        return {
            "name": namespace,
            "links": _json("ip", "-d", "-j", "address", "show"),
            "routes": _json("ip", "-4", "-j", "route", "show", "table", "all"),
            "policy": _json("ip", "-4", "-j", "rule", "show"),
            "parameters": _parameters(),
        }


def _files() -> Iterator[str]:
    for name in _FILES:
        top = Path(name)
        for path in (top, *sorted(top.rglob("*"))) if top.exists() else ():
            there = path.lstat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "-"
            yield f"{path} {there.st_mode:o} {_user(there.st_uid)} {digest}"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _processes(names: list[str]) -> Iterator[dict[str, object]]:
    """Yield each process: its words, its network namespace (None: the host's own), and whether its parent is in it too.

    A namespace that has lost its name, and lives on for a process in it, is called "(deleted)".
    """
    known = {(_NETNS / name).stat().st_ino: name for name in names}
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
    places = [_place(name) for name in (None, *names)]
    answer = {
        "places": places,
        # After the links: a namespace is given its number when a link's peer in it is first shown.
        "namespace_ids": _json("ip", "-j", "netns", "list"),
        "rules": _output("iptables-save", "-c"),
        "listeners": sorted(" ".join(line.split()[:5]) for line in _output("ss", "-Hlntu").splitlines()),
        "processes": list(_processes(names)),
        "files": sorted(_files()) if "files" in sys.argv[1:] else [],
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
