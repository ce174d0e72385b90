"""Somebody who knocks at doors from everywhere on a host, for as long as something is going on there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from underlay.hosts.base import Host
from underlay.wait import NotYet, until

_BEGAN, _STOP = "/run/underlay-moments-began", "/run/underlay-moments-are-over"
#: Times the plan's `ready` that all of it may take.
LONGEST = 8

Way = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Knocking:
    """What came of it: rounds, attempts, who got through (address, address and port) how often, and what failed.

    ``longest`` is how many seconds the longest round took: what happens within one may be missed.
    """

    rounds: int
    tried: int
    through: Mapping[Way, int]
    made: int
    failed: Sequence[str]
    longest: float


@contextmanager
def knock(
    host: Host, targets: Sequence[tuple[str, int]], steady: Sequence[tuple[str, str, int]], ready: float
) -> Iterator[list[Knocking]]:
    """Knock at targets from every namespace of a host while the block runs; its one result is in the list afterwards.

    ``steady`` is what must always connect: each a namespace, an address and a port. ``ready`` is the plan's.
    """
    found: list[Knocking] = []
    asked = {
        "targets": list(targets),
        "steady": list(steady),
        "began": _BEGAN,
        "stop": _STOP,
        "lifetime": ready * LONGEST,
    }

    def begun() -> bool | NotYet:
        if run.done():
            run.result()
        return True if host.run(["rm", _BEGAN], check=False).ok else NotYet("no round yet")

    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(
            host.run, ["python3", "-m", "acceptance.moments"], stdin=json.dumps(asked), timeout=ready * (LONGEST + 1)
        )
        try:
            until(begun, deadline_s=ready, what="a first round", where=host.name)
            yield found
        finally:
            host.run(["touch", _STOP])
            said = json.loads(run.result().stdout)
    through = {tuple(key.split(" ")): count for key, count in said["through"].items()}
    ways = {(source, target): count for (source, target), count in through.items()}
    found.append(Knocking(said["rounds"], said["tried"], ways, said["made"], tuple(said["failed"]), said["longest"]))
