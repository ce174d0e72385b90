"""Parts of the shop taken away for a while, whole or one replica of them: stopped, killed, frozen.

Waiting is what it costs: for those who do not answer, somebody waits until his time is over. So what does not disturb
each other is away at the same time, and is asked for at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from acceptance.modules import LabHost
from acceptance.suite.stage import Seat, Stage
from underlay.topology import Program
from underlay.wait import NotYet, until


def of(stage: Stage, *programs: Program) -> tuple[Seat, ...]:
    """Return the replicas that run one of the programs."""
    return tuple(seat for seat in stage.seats() if seat.service.program in programs)


def crowded(stage: Stage, *programs: Program) -> tuple[Seat, ...]:
    """Return the first replica of each service of one of the programs that has more than one."""
    some = of(stage, *programs)
    return tuple(seat for seat in some if len(seat.service.replicas) > 1 and seat.replica == seat.service.replicas[0])


def each(act: Callable[[Seat], None], seats: Sequence[Seat]) -> None:
    """Do something with all replicas at the same time."""
    with ThreadPoolExecutor(max(1, len(seats))) as pool:
        list(pool.map(act, seats))


@contextmanager
def stopped(stage: Stage, seats: Sequence[Seat]) -> Iterator[None]:
    """Have replicas stopped for a while, as an operator does it."""
    try:
        each(stage.stop, seats)
        yield
    finally:
        each(stage.start, seats)


@contextmanager
def frozen(stage: Stage, seats: Sequence[Seat]) -> Iterator[None]:
    """Have replicas frozen for a while: the kernel takes connections for them, and nobody answers."""
    hosts = {seat.name: LabHost(stage.machine(seat), stage.plan) for seat in seats}
    pids = {seat.name: _pids(stage, seat) for seat in seats}
    try:
        for name, host in hosts.items():
            host.machine.run(["kill", "-STOP", *pids[name]])
        yield
    finally:
        for name, host in hosts.items():
            host.machine.run(["kill", "-CONT", *pids[name]], check=False)


def kill(stage: Stage, seats: Iterable[Seat]) -> None:
    """Kill all processes of replicas, and wait until each has others: whoever looks after them starts them again."""
    before = {seat: frozenset(_pids(stage, seat)) for seat in seats}
    for seat, pids in before.items():
        stage.machine(seat).run(["kill", "-KILL", *pids], check=False)
    for seat, pids in before.items():

        def another(seat: Seat = seat, pids: frozenset[str] = pids) -> bool | NotYet:
            now = frozenset(_pids(stage, stage.seat(seat.member)))
            return True if now and not now & pids else NotYet(f"processes {sorted(now)}")

        ready = stage.plan.timeouts.ready
        until(another, deadline_s=ready, what=f"a new process of {seat.name}", where=f"{seat.host}/{seat.name}")


def _pids(stage: Stage, seat: Seat) -> tuple[str, ...]:
    host = LabHost(stage.machine(seat), stage.plan)
    return tuple(str(pid) for pid in host.namespace(seat.space).processes)
