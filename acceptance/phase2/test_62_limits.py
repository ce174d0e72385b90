"""What a container may use: as the kernel keeps it, and what comes of asking for more."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from acceptance.modules import LabHost
from acceptance.modules.cgroup import Cgroup
from acceptance.phase2.moments import healthy
from acceptance.phase2.stage import ROOM, InContainers
from acceptance.suite import outages
from acceptance.suite.shop import Shop
from acceptance.suite.stage import Seat
from underlay.process import Completed
from underlay.topology import Program
from underlay.wait import NotYet, until

_MIB = 1024 * 1024
#: Parts of a processor, bytes, and processes with threads (docs/phase2.md).
_CPUS, _MEMORY, _PIDS = 0.5, 128 * _MIB, 64
_OF_DATABASE = (_CPUS, 256 * _MIB, 256)
#: Programs whose images have an interpreter.
_IN_PYTHON = (Program.PRODUCT, Program.ORDER, Program.GATEWAY)
#: How far from its share may be what somebody gets who wants more.
_EXACT = 0.1
#: Of how many busy loops a noise is made, and how often it is measured what comes of it.
_LOOPS, _ROUNDS = 4, 3
#: Requests of one measurement, and the part of their rate that must be left.
_REQUESTS, _LEFT = 50, 0.5

#: Where a container may write: a file there ends what runs in it, by the hand of the host.
_QUIET = f"{ROOM}/quiet"
#: Is busy in so many processes for so many seconds, or until it is told to be quiet.
_SPIN = f"""
import os, sys, time
for _ in range(int(sys.argv[2]) - 1):
    if os.fork() == 0:
        break
else:
    sys.argv.append("first")
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end and not os.path.exists("{_QUIET}"): pass
if "first" in sys.argv:
    for _ in range(int(sys.argv[2]) - 1): os.wait()
"""
#: Fills so many mebibytes.
_EAT = """
import sys
kept = [b"x" * 1048576 for _ in range(int(sys.argv[1]))]
"""
#: Starts so many processes, or as many as it can, which end after so many seconds, or when they are told to be quiet.
#: Tells how many there were.
_BREED = f"""
import os, sys, time
count, end = 0, time.monotonic() + float(sys.argv[2])
for _ in range(int(sys.argv[1])):
    try:
        pid = os.fork()
    except BlockingIOError:
        break
    if pid == 0:
        while time.monotonic() < end and not os.path.exists("{_QUIET}"): time.sleep(0.1)
        os._exit(0)
    count += 1
for _ in range(count): os.wait()
print(count)
"""


@contextmanager
def _noise(stage: InContainers, seat: Seat, program: str, *words: object) -> Iterator[Future[Completed]]:
    """Have a program run in a container meanwhile."""
    host, file = stage.machine(seat), f"/proc/{stage.process(seat)}/root{_QUIET}"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(_inside, stage, seat, program, *words)
        try:
            yield running
        finally:
            host.run(["touch", file])
            try:
                running.result()
            finally:
                host.run(["rm", file])


def _inside(stage: InContainers, seat: Seat, program: str, *words: object) -> Completed:
    command = ["docker", "exec", seat.name, "python3", "-I", "-S", "-c", program, *map(str, words)]
    return stage.machine(seat).run(command, check=False, timeout=stage.plan.timeouts.ready)


def _group(stage: InContainers, seat: Seat) -> Cgroup:
    return LabHost(stage.machine(seat), stage.plan).cgroup(stage.process(seat))


def _two(stage: InContainers) -> tuple[Seat, Seat]:
    """Return two replicas with an interpreter, of different services if there are such."""
    some = outages.of(stage, *_IN_PYTHON)
    if len(some) < 2:
        pytest.skip("the plan has no two replicas of the shop's own services")
    noisy = next((seat for seat in some if seat.service.program is Program.ORDER), some[0])
    return noisy, next((seat for seat in some if seat.service != noisy.service), some[-1])


def test_kernel_keeps_the_limits_of_each_container(containers: InContainers, seat: Seat) -> None:
    group = _group(containers, seat)
    wanted = _OF_DATABASE if seat.service.program is Program.POSTGRES else (_CPUS, _MEMORY, _PIDS)
    seen = (group.cpus, group.memory, group.pids)
    assert seen == wanted, f"{seat.host}/{seat.name}: expected: CPUs, bytes, processes {wanted}; seen: {seen}"
    assert group.swap == 0, f"{seat.host}/{seat.name}: expected: nothing of it goes to the disk; seen: {group.swap}"


@dataclass(frozen=True, slots=True)
class Share:
    """What a replica got while it was busy, round by round.

    ``cpus`` are parts of a processor, ``throttled`` are of the periods those in which it had to stop for more.
    """

    host: LabHost
    seat: Seat
    cpus: Sequence[float]
    throttled: Sequence[float]

    def assert_exact(self) -> None:
        """Fail unless it never got more than it may have, and all of that in each period in which it was stopped.

        In the other periods somebody else on the machine took the time; when nobody does, there are none.
        """
        for cpus, throttled in zip(self.cpus, self.throttled, strict=True):
            low, high = _CPUS * throttled * (1 - _EXACT), _CPUS * (1 + _EXACT)
            assert low <= cpus <= high, f"{self.seat.name}: expected: {low:.3f} to {high:.3f} CPUs; seen: {cpus:.3f}"
        if not any(self.throttled):
            load = self.host.check_output("cat /proc/loadavg")
            pytest.skip(f"others on this machine took the time: {self.seat.name} got {self.cpus}; load {load}")


@pytest.fixture(scope="module")
def shares(containers: InContainers) -> tuple[Share, Share]:
    """Have a noisy replica, with several busy loops, and a neighbour with one, at the same time, several times."""
    both = _two(containers)
    groups = [_group(containers, seat) for seat in both]
    cpus: tuple[list[float], list[float]] = ([], [])
    throttled: tuple[list[float], list[float]] = ([], [])
    with ThreadPoolExecutor(2) as pool:
        for _ in range(_ROUNDS):
            before = [(group.seconds, group.periods) for group in groups]
            for done in pool.map(lambda seat, loops: _inside(containers, seat, _SPIN, 1, loops), both, (_LOOPS, 1)):
                assert done.ok, f"expected: it runs to its end; seen: {done}"
            for number, (group, (used, (periods, stopped))) in enumerate(zip(groups, before, strict=True)):
                # By the clock of whoever measures: the kernel's own count of the periods in which it ran.
                ran = max(group.periods[0] - periods, 1)
                cpus[number].append((group.seconds - used) / (ran * group.period))
                throttled[number].append((group.periods[1] - stopped) / ran)
    first, second = (
        Share(LabHost(containers.machine(seat), containers.plan), seat, cpus[number], throttled[number])
        for number, seat in enumerate(both)
    )
    return first, second


def test_busy_loops_get_half_a_processor(shares: tuple[Share, Share]) -> None:
    shares[0].assert_exact()


def test_neighbour_of_a_noisy_container_keeps_its_share(shares: tuple[Share, Share]) -> None:
    noisy, neighbour = shares
    neighbour.assert_exact()
    seen, least = sum(neighbour.cpus), sum(noisy.cpus) * _LEFT
    name = neighbour.seat.name
    assert seen >= least, f"{name}: expected: half of what the noisy one got, {least:.2f}; seen: {seen:.2f}"


def test_customers_do_not_notice_a_noisy_container(containers: InContainers, shop: Shop) -> None:
    noisy, _ = _two(containers)
    limit, pairs = containers.plan.timeouts.ready, []
    for _ in range(_ROUNDS):
        before, used = _rate(shop), _group(containers, noisy).seconds
        with _noise(containers, noisy, _SPIN, limit, _LOOPS):
            _await_use(containers, noisy, used)
            pairs.append((before, _rate(shop)))
    # Whoever else is on the machine disturbs some rounds, and the noise would disturb each.
    best = max(during / before for before, during in pairs)
    assert best >= _LEFT, f"expected: {_LEFT:g} of the usual rate or more; seen: requests a second {pairs}"


def _rate(shop: Shop) -> float:
    """Return the requests that are answered in a second."""
    began = time.monotonic()
    answers = shop.ask([shop.get("/api/products")] * _REQUESTS)
    seconds = time.monotonic() - began
    seen = {answer.status for answer in answers}
    assert seen == {200}, f"expected: 200; seen: {seen}"
    return _REQUESTS / seconds


def _await_use(stage: InContainers, seat: Seat, before: float) -> None:
    """Wait until a replica is really busy."""
    group = _group(stage, seat)

    def busy() -> bool | NotYet:
        used = group.seconds - before
        return True if used > _CPUS / 2 else NotYet(f"{used:.2f} s")

    until(busy, deadline_s=stage.plan.timeouts.ready, what="use of the processor", where=f"{seat.host}/{seat.name}")


def _started(stage: InContainers, seat: Seat) -> tuple[object, object]:
    """Return how often Docker started a container again, and whether one of its processes ran out of memory."""
    said = stage.inspect([seat.name])[seat.name] or {}
    state = said.get("State")
    return said.get("RestartCount"), state.get("OOMKilled") if isinstance(state, dict) else None


def test_process_that_wants_too_much_memory_is_killed_and_its_service_goes_on(containers: InContainers) -> None:
    seat, _ = _two(containers)
    group, before = _group(containers, seat), _started(containers, seat)[0]
    killed = group.killed
    done = _inside(containers, seat, _EAT, 2 * _MEMORY // _MIB)
    assert done.returncode == 128 + 9, f"{seat.name}: expected: it is killed, 137; seen: {done}"
    assert group.killed == killed + 1, f"{seat.name}: expected: the kernel killed one; seen: {group.killed - killed}"
    seen = _started(containers, seat)[0]
    assert seen == before, f"{seat.name}: expected: not started again, {before}; seen: {seen}"
    healthy(containers, containers.plan.timeouts.ready)


def test_service_that_is_killed_for_its_memory_comes_back(containers: InContainers, shop: Shop) -> None:
    """The kernel kills the service instead, since it is told that this one is the worst."""
    seat = next(iter(outages.crowded(containers, Program.PRODUCT)), None)
    if seat is None:
        pytest.skip("the plan has no two replicas of a product service")
    pid, before = containers.process(seat), _started(containers, seat)[0]
    containers.machine(seat).run(["sh", "-c", 'echo 1000 >"/proc/$1/oom_score_adj"', "sh", str(pid)])
    with ThreadPoolExecutor(1) as pool:
        eating = pool.submit(_inside, containers, seat, _EAT, 2 * _MEMORY // _MIB)
        answers = [shop.one(shop.get("/api/products"))]
        while not eating.done():
            answers.append(shop.one(shop.get("/api/products")))
    seen = {answer.status for answer in answers}
    assert seen == {200}, f"expected: the other replica answers, 200; seen: {seen}"

    def again() -> bool | NotYet:
        count = _started(containers, seat)[0]
        return True if count != before else NotYet(f"started again {count} times")

    ready = containers.plan.timeouts.ready
    until(again, deadline_s=ready, what=f"a new start of {seat.name}", where=seat.host)
    healthy(containers, ready)
    shop.wait_for_replicas()


def test_fork_bomb_stops_at_its_limit_and_neighbours_start_what_they_like(containers: InContainers) -> None:
    seat, neighbour = _two(containers)
    group = _group(containers, seat)
    refused, ready = group.refused, containers.plan.timeouts.ready

    def full() -> bool | NotYet:
        return True if group.refused > refused else NotYet("none was refused")

    with _noise(containers, seat, _BREED, 4 * _PIDS, ready) as bomb:
        until(full, deadline_s=ready, what="the last process", where=f"{seat.host}/{seat.name}")
        other = _inside(containers, neighbour, _BREED, 2, 0)
        assert not bomb.done(), f"expected: the bomb is there meanwhile; seen: {bomb.result()}"
    assert other.stdout.split() == ["2"], f"{neighbour.name}: expected: it starts 2 processes; seen: {other}"
    done = bomb.result()
    count = int(done.stdout or -1)
    assert 0 < count < _PIDS, f"{seat.name}: expected: less than {_PIDS} processes; seen: {done}"
    healthy(containers, containers.plan.timeouts.ready)
