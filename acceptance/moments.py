"""Knocks, every few milliseconds, from every network namespace of the host it runs on, until somebody ends it.

Its input is a JSON object: ``targets``, a list of addresses and ports; ``steady``, a list of what must always connect,
each a namespace, an address and a port; ``began`` and ``stop``, paths of files; ``lifetime``, in seconds. It makes the
first file after its first round. When the other is there, or the time is over, it prints what it saw. Namespaces come
and go: those that are named, and those of containers, are looked up before each round. Nothing but Python's standard
library.
"""

from __future__ import annotations

import errno
import json
import select
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from acceptance.inside import enter

#: Seconds from one round to the next, and until a connection that is not refused counts as none.
_EACH_S, _PATIENCE_S = 0.02, 0.015
#: Seconds that what must always connect may take: a packet that is lost on a busy machine is sent again after one
#: (RFC 6298), which is no refusal.
_STEADY_S = 3.0
_PLACES = (Path("/run/netns"), Path("/run/docker/netns"))

Target = tuple[str, int]


def _namespaces(own: int) -> list[Path]:
    """Return those of others: Docker has a name for the host's, too, once a container has shared it."""
    every = [path for top in _PLACES if top.is_dir() for path in top.iterdir()]
    return [path for path in every if _inode(path) != own]


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0  # it has gone


def _knock(path: Path, targets: list[Target], seen: Counter[str]) -> int:
    """Try all targets from one namespace at once; note who got through, from which address. Return the attempts."""
    try:
        with path.open("rb") as place:
            enter(place.fileno())
    except OSError:
        return 0  # it has gone, or is not finished
    waiting = select.poll()
    links: dict[int, tuple[socket.socket, Target]] = {}
    for target in targets:
        link = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        code = link.connect_ex(target)
        if code in {0, errno.EINPROGRESS}:
            waiting.register(link, select.POLLOUT)
            links[link.fileno()] = (link, target)
        else:
            link.close()
    tried, until = len(links), time.monotonic() + _PATIENCE_S
    while links and (left := until - time.monotonic()) > 0:
        for number, _ in waiting.poll(left * 1000):
            link, (address, port) = links.pop(number)
            waiting.unregister(number)
            if link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                with suppress(OSError):
                    seen[f"{link.getsockname()[0]} {address}:{port}"] += 1
            link.close()
    for link, _ in links.values():
        link.close()
    return tried


def _steady(name: str, address: str, port: int, over: threading.Event, failed: list[str], made: list[int]) -> None:
    """Connect again and again from a named namespace, in a thread that has entered it; note what failed."""
    with Path("/run/netns", name).open("rb") as place:
        enter(place.fileno())
    while not over.wait(_EACH_S):
        began = time.monotonic()
        try:
            socket.create_connection((address, port), timeout=_STEADY_S).close()
        except OSError as error:
            failed.append(f"{name} to {address}:{port} after {time.monotonic() - began:.3f} s: {error}")
        made[0] += 1


def main() -> None:
    """Knock until it is over, and print what was seen."""
    asked = json.load(sys.stdin)
    targets: list[Target] = [(address, port) for address, port in asked["targets"]]
    stop, end = Path(asked["stop"]), time.monotonic() + asked["lifetime"]
    own = _inode(Path("/proc/self/ns/net"))
    over, failed, made = threading.Event(), list[str](), [0]
    threads = [
        threading.Thread(target=_steady, args=(*way, over, failed, made), daemon=True) for way in asked["steady"]
    ]
    for thread in threads:
        thread.start()
    seen: Counter[str] = Counter()
    rounds = tried = 0
    longest = 0.0
    while time.monotonic() < end and not stop.exists():
        began = time.monotonic()
        for path in _namespaces(own):
            tried += _knock(path, targets, seen)
        rounds += 1
        if rounds == 1:
            Path(asked["began"]).touch()
        took = time.monotonic() - began
        longest = max(longest, took)
        over.wait(max(0.0, _EACH_S - took))
    over.set()
    for thread in threads:
        thread.join(2 * _STEADY_S)
    json.dump(
        {"rounds": rounds, "tried": tried, "through": seen, "failed": failed, "made": made[0], "longest": longest},
        sys.stdout,
    )
    stop.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
