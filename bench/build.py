"""Measure all contenders at all sizes, side by side, without touching the machine's own network.

Each single measurement is a process of its own in new network, mount and process namespaces, which end with it,
whatever happens. The contenders take turns, and every other round goes through them backwards, so that what else the
machine does at the time meets them all.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.inside import Figures
from bench.network import LARGEST
from bench.tools import Machine, Tool, machine
from underlay.errors import CheckFailed, InputError, NotReady, Problem
from underlay.process import run
from underlay.repository import REPOSITORY

#: What `ip` needs to be asked about, to see that the machine's own network is as it was.
_LOOK = (("link", "show"), ("address", "show"), ("route", "show", "table", "all"), ("netns", "list"))
_LOOK_S = 10.0
_LIFETIME = re.compile(r"(valid_lft|preferred_lft|expires) \S+")
#: Two steps and what lies between them: a measurement gets so many times the limit of a step before it is killed.
_STEPS = 4
_NEW_NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of one tool at one size: its figures, or why there are none."""

    tool: Tool
    size: int
    run: int
    figures: Figures | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that was measured, and where.

    ``load`` is the machine's load average before and after. ``changed`` names the commands that say something else of
    the machine's own network afterwards than before; there should be none.
    """

    machine: Machine
    sizes: tuple[int, ...]
    runs: int
    load: tuple[float, float]
    measurements: tuple[Measurement, ...]
    changed: tuple[str, ...] = ()

    def ensure_unchanged(self) -> None:
        """Raise CheckFailed if the machine's own network was not the same afterwards."""
        if self.changed:
            hint = "nothing that is measured runs outside its own namespaces; see what else was at work"
            raise CheckFailed(
                *(
                    Problem("this machine", f"`{command}` does not say the same as before the measurement", hint)
                    for command in self.changed
                )
            )


#: Is told of each measurement before it is made: its number from 1, how many there are, and what it is.
Progress = Callable[[int, int, str], None]


def measure_build(
    sizes: Sequence[int], runs: int, limit: float, progress: Progress, fewer: Mapping[Tool, int] | None = None
) -> Result:
    """Measure.

    ``limit``, in seconds, is for one step of one tool; one that exceeds it is not asked at that size again.
    ``fewer`` gives the number of runs of tools that take long; 0 leaves one out. Ctrl-C ends it early, with what was
    measured so far.

    Raises InputError for sizes that no bridge can have, NotReady without root or a program.
    """
    _refuse(sizes, runs)
    here = machine()
    tools = {tool: min(runs, (fewer or {}).get(tool, runs)) for tool in Tool if tool not in here.missing}
    turns = tuple(order(tools, sizes))
    before, load = _network(), os.getloadavg()[0]
    done: list[Measurement] = []
    failed: set[tuple[Tool, int]] = set()
    for number, (size, tool, attempt) in enumerate(turns, start=1):
        progress(number, len(turns), f"{size} namespaces, {tool}, run {attempt}")
        if (tool, size) in failed:
            continue
        try:
            one = _one(tool, size, attempt, limit)
        except KeyboardInterrupt:
            break
        done.append(one)
        if one.error:
            failed.add((tool, size))
    after = _network()
    changed = tuple(command for command in before if before[command] != after[command])
    return Result(here, tuple(sizes), runs, (load, os.getloadavg()[0]), tuple(done), changed)


def order(runs: Mapping[Tool, int], sizes: Sequence[int]) -> Iterator[tuple[int, Tool, int]]:
    """Yield size, tool and number of the run, from 1: every tool once a round, every other round backwards."""
    for size in sizes:
        for attempt in range(1, max(runs.values()) + 1):
            tools = [tool for tool, most in runs.items() if attempt <= most]
            for tool in tools if attempt % 2 else reversed(tools):
                yield size, tool, attempt


def _refuse(sizes: Sequence[int], runs: int) -> None:
    problems = [
        Problem("--sizes", f"{size} is not a number of ports that a bridge can have", f"give 1 to {LARGEST}")
        for size in sizes
        if not 1 <= size <= LARGEST
    ]
    if runs < 1:
        problems.append(Problem("--runs", f"{runs} runs have no median", "give 1 or more, better 5"))
    if problems:
        raise InputError(*problems)
    if os.geteuid() != 0:
        raise NotReady(Problem("bench", "making network namespaces needs root", "run it with sudo"))


def _one(tool: Tool, size: int, attempt: int, limit: float) -> Measurement:
    argv = [*_NEW_NAMESPACES, sys.executable, "-P", "-m", "bench.inside", tool.value, str(size), str(limit)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    try:
        ended = run(argv, timeout=_STEPS * limit, env=environment, check=False, where="bench")
    except NotReady as error:
        return Measurement(tool, size, attempt, None, str(error))
    try:
        said: Mapping[str, float | str] = json.loads(ended.stdout)
    except json.JSONDecodeError:
        return Measurement(tool, size, attempt, None, ended.stderr.strip() or "it said nothing")
    if "error" in said:
        return Measurement(tool, size, attempt, None, str(said["error"]))
    return Measurement(tool, size, attempt, Figures(**{name: float(value) for name, value in said.items()}))


def _network() -> Mapping[str, str]:
    """Return what `ip` says of the network that this process is in, without what changes by itself."""
    found: dict[str, str] = {}
    for what in _LOOK:
        command = ("ip", "-o", *what)
        found[" ".join(command)] = _LIFETIME.sub("", run(command, timeout=_LOOK_S).stdout)
    return found
