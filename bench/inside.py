"""One measurement: ``python3 -m bench.inside TOOL SIZE LIMIT`` builds, looks and removes once; prints one JSON object.

It must be started in network, mount and process namespaces made for it (see :mod:`bench.build`): it works on whatever
network it is in, and hides /run behind an empty file system of its own.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

from bench import network
from bench.gone import wait_until_gone
from bench.tools import MININET_PYTHON, Tool
from provision.kernel import syscalls
from provision.kernel.network import NETNS_DIR
from underlay import libc
from underlay.errors import CheckFailed, NotReady, Problem, UnderlayError
from underlay.process import run
from underlay.repository import REPOSITORY

_FILES = Path("/run/bench")
#: Seconds that one datagram may take on a bridge that still tells everybody of a thousand new neighbours.
_REACH_S = 10.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One run of one tool, in seconds.

    ``up`` and ``down`` are the work as a tool that is already running does it; ``up_whole`` and ``down_whole`` are
    counted from the start of its process. Both downs end when no link and no name is left. ``settled`` is counted like
    ``down_whole`` and ends when the kernel's own cleaning up after the namespaces has ended too.
    """

    up: float
    up_whole: float
    down: float
    down_whole: float
    settled: float


def measure(tool: Tool, size: int, limit: float) -> Figures:
    """Build, look at, and remove the network once. ``limit`` in seconds is for each of the three."""
    _FILES.mkdir()
    run(["ip", "link", "set", "lo", "up"], timeout=limit)
    match tool:
        case Tool.OURS:
            return _two_commands(size, limit, _ours("up", size), _ours("down", size))
        case Tool.EXPLAIN:
            (_FILES / "up").write_text(network.script_up(size))
            (_FILES / "down").write_text(network.script_down(size))
            return _two_commands(size, limit, _shell("up"), _shell("down"))
        case Tool.BATCH:
            network.write_batches(size, _FILES)
            return _two_commands(size, limit, _shell("up"), _shell("down"))
        case Tool.FLOOR:
            network.write_batches(size, _FILES)
            return _two_commands(0, limit, _shell("floor"), _shell("down"))
        case Tool.MININET:
            return _mininet(size, limit)


def _two_commands(look_at: int, limit: float, up: Sequence[str], down: Sequence[str]) -> Figures:
    """Run one command for up and one for down; a command that prints its own seconds is believed for the work."""
    built, up_whole = _timed(lambda: run(up, timeout=limit, env=_environment()).stdout)
    if look_at:
        _look(look_at, limit)
    started = time.perf_counter()

    def remove() -> str:
        said = run(down, timeout=limit, env=_environment()).stdout
        wait_until_gone(limit)
        return said

    removed, down_whole = _timed(remove)
    _settle(limit)
    settled = time.perf_counter() - started
    return Figures(_own_seconds(built, up_whole), up_whole, _own_seconds(removed, down_whole), down_whole, settled)


def _look(size: int, limit: float) -> None:
    """Compare all that was built with the list of resources, and let the last namespace reach the first."""
    seen = run(_ours("check", size), timeout=limit, env=_environment(), check=False)
    if not seen.ok:
        raise CheckFailed(Problem("bench", "what was built is not as planned", seen.stdout or seen.stderr))
    first, last = (network.nodes(size)[number] for number in (0, -1))
    _reach(NETNS_DIR / last.namespace, NETNS_DIR / first.namespace, str(first.address.ip))


def _reach(source: Path, target: Path, address: str) -> None:
    """Send a datagram from one namespace to an address in another; NotReady if it does not arrive."""
    with syscalls.inside(target):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with syscalls.inside(source):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind((address, 0))
        receiver.settimeout(_REACH_S)
        sender.sendto(b"reached", receiver.getsockname())
        try:
            receiver.recv(16)
        except TimeoutError:
            raise NotReady(Problem("bench", f"nothing sent to {address} arrived within {_REACH_S:g} s")) from None


def _mininet(size: int, limit: float) -> Figures:
    nodes = network.nodes(size)
    addresses = [str(node.address) for node in nodes]
    started = time.perf_counter()
    process = subprocess.Popen(
        [MININET_PYTHON, "-P", "-m", "bench.with_mininet", str(network.GATEWAY.ip), *addresses],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(_environment()),
    )
    with process:
        try:
            up = _hear(process, limit)
            up_whole = time.perf_counter() - started
            seen = _say(process, "look", limit)
            if seen["differences"]:
                raise CheckFailed(Problem("bench", f"what Mininet built is not as planned: {seen['differences']}"))
            first, last = (Path(f"/proc/{number}/ns/net") for number in seen["ends"])
            _reach(last, first, str(nodes[0].address.ip))
            started = time.perf_counter()
            down = _say(process, "remove", limit)
            process.wait(limit)
        except BaseException:
            process.kill()
            raise
        down_whole = time.perf_counter() - started
    _settle(limit)
    settled = time.perf_counter() - started
    return Figures(up["seconds"], up_whole, down["seconds"], down_whole, settled)


class _Word(TypedDict, total=False):
    """What the program that runs Mininet says on one line."""

    seconds: float
    differences: list[str]
    ends: list[int]


def _say(process: subprocess.Popen[str], word: str, limit: float) -> _Word:
    assert process.stdin, "it was opened with a pipe"  # noqa: S101
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
    return _hear(process, limit)


def _hear(process: subprocess.Popen[str], limit: float) -> _Word:
    assert process.stdout, "it was opened with a pipe"  # noqa: S101
    ready, _, _ = select.select([process.stdout], [], [], limit)
    line = process.stdout.readline() if ready else ""
    if not line:
        raise NotReady(Problem("bench", f"Mininet did not answer within {limit:g} s, or ended too soon"))
    answer: _Word = json.loads(line)
    return answer


def _settle(limit: float) -> None:
    """Wait until the kernel has cleaned up after every namespace that was removed.

    It does so in the order of removal, one batch at a time (cleanup_net, net/core/net_namespace.c). So a last
    namespace is made and removed: when the link that led into it has gone, so has all that went before.
    """
    lines = "netns add last\nlink add last type veth peer name inner netns last\nnetns del last\n"
    run(["ip", "-batch", "-"], timeout=limit, stdin=lines)
    wait_until_gone(limit)


def _timed(work: Callable[[], str]) -> tuple[str, float]:
    started = time.perf_counter()
    said = work()
    return said, time.perf_counter() - started


def _own_seconds(said: str, otherwise: float) -> float:
    return float(json.loads(said)["seconds"]) if said.startswith("{") else otherwise


def _ours(verb: str, size: int) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "bench.ours", verb, str(size))


def _shell(name: str) -> tuple[str, ...]:
    return ("sh", str(_FILES / name))


def _environment() -> Mapping[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY)}


def main(arguments: Sequence[str]) -> int:
    """Measure once and print the figures, or what went wrong."""
    tool, size, limit = Tool(arguments[0]), int(arguments[1]), float(arguments[2])
    libc.mount("tmpfs", "/run", "tmpfs")
    try:
        print(json.dumps(asdict(measure(tool, size, limit))))
    except UnderlayError as error:
        print(json.dumps({"error": str(error)}))
        return int(error.exit_code)
    except TimeoutError as error:
        print(json.dumps({"error": str(error)}))
        return int(NotReady.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
