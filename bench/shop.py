"""Measure the shop of one lab, or of several side by side: requests a second, start, memory.

The labs take turns, and every other round goes through them backwards, so that what else the machine does at the time
meets them all. Two labs may hold two versions of Underlay: nothing is asked of one but its programs and their ports.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from underlay.errors import InputError, NotReady, Problem
from underlay.hosts.base import Host, Lab
from underlay.topology import Program

#: The shop's own services, which are started again to be measured.
OWN = (Program.GATEWAY, Program.PRODUCT, Program.ORDER)
#: What is asked for: through everything, and of the edge alone.
PATHS: Mapping[str, str] = {"shop": "/api/products", "edge": "/health"}
_LOAD_S = 120.0
_READY_S = 20.0
_STARTING = Path(__file__).with_name("starting.py")
_RATE = re.compile(r"Requests per second:\s+([\d.]+)")
_LOST = re.compile(r"(?:Failed requests|Non-2xx responses):\s+(\d+)")

#: What the raw data's numbers mean; it stands in the file, so that it explains itself.
DEFINITIONS = {
    "shop": "requests a second, /api/products from the other host through edge and gateway, by ab",
    "edge": "the same for /health, which the edge answers itself",
    "start": "seconds from the start of a service's process to its first answer, of a path that there is not",
    "memory": "resident bytes of a service's process and its children then",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure: of which lab, in which round, what, of which replica if it is of one."""

    lab: str
    round: int
    what: str
    value: float
    replica: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for in one go: so many requests, so many at a time."""

    requests: int = 2000
    at_once: int = 50


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that was measured, and where; ``hosts`` is what each lab's hosts say of themselves."""

    kernel: str
    cpus: int
    load: Load
    rounds: int
    hosts: Mapping[str, Mapping[str, Mapping[str, str]]]
    samples: tuple[Sample, ...]

    def median(self, lab: str, what: str) -> float:
        """Return the median of one figure, over all rounds and replicas."""
        return median(sample.value for sample in self.samples if (sample.lab, sample.what) == (lab, what))

    def as_json(self) -> str:
        """Return everything as JSON: definitions, machine, each single figure."""
        return json.dumps({"definitions": DEFINITIONS, **asdict(self)}, indent=1) + "\n"


#: Is told of each round before it begins: its number from 1, and how many there are.
Progress = Callable[[int, int], None]


def measure_shop(labs: Sequence[Lab], rounds: int, load: Load, progress: Progress) -> Result:
    """Measure; each lab's shop is as it was afterwards, with its own services started again.

    Raises InputError for numbers that give no figure and for a lab without the shop, NotReady when one does not answer.
    """
    _refuse(labs, rounds, load)
    samples: list[Sample] = []
    for number in range(1, rounds + 1):
        progress(number, rounds)
        for lab in labs if number % 2 else reversed(labs):
            samples += (Sample(lab.plan.lab, number, *figure) for figure in _one(lab, load))
    hosts = {lab.plan.lab: {name: dict(host.facts()) for name, host in lab.hosts.items()} for lab in labs}
    return Result(platform.release(), os.cpu_count() or 1, load, rounds, hosts, tuple(samples))


def rate(said: str) -> float:
    """Return the requests a second that `ab` tells of; ValueError if some failed, or there is no such line.

    >>> rate("Failed requests:        0\\nRequests per second:    2705.14 [#/sec] (mean)")
    2705.14
    """
    lost = sum(int(number) for number in _LOST.findall(said))
    if lost:
        raise ValueError(f"{lost} requests failed")
    found = _RATE.search(said)
    if found is None:
        raise ValueError("it tells no requests per second")
    return float(found[1])


def _refuse(labs: Sequence[Lab], rounds: int, load: Load) -> None:
    problems = [Problem(option, f"{number} is no number to measure with", "give 1 or more")
                for option, number in (("--rounds", rounds), ("--requests", load.requests), ("--at-once", load.at_once))
                if number < 1]  # fmt: skip
    if load.requests < load.at_once:
        problems.append(Problem("--at-once", f"{load.at_once} at a time of {load.requests} in all", "ask for more"))
    names = [lab.plan.lab for lab in labs]
    problems += [
        Problem(f"lab {name}", "two plans mean it", "give each plan a lab of its own")
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    problems += [
        Problem(f"lab {lab.plan.lab}", "its entry is no edge", "give plans whose first published service is nginx")
        for lab in labs
        if not lab.plan.published or lab.plan.service(lab.plan.published[0].service).program is not Program.NGINX
    ]
    if problems:
        raise InputError(*problems)


def _one(lab: Lab, load: Load) -> Iterator[tuple[str, float, str]]:
    for service, replica in lab.plan.replicas():
        if service.program in OWN:
            argv = ("python3", "-P", "-", replica.name, str(replica.ip), str(service.port))
            host = lab.hosts[service.host]
            text = _STARTING.read_text(encoding="utf-8")
            told = host.run(argv, stdin=text, namespace=replica.namespace, timeout=_LOAD_S, check=False)
            if not told.ok:
                hint = "is the phase on? ./lab status; ./lab converge phase1"
                raise NotReady(Problem(f"{host.name}/{replica.name}", told.stderr.strip() or "it said nothing", hint))
            figures: Mapping[str, float] = json.loads(told.stdout)
            yield from ((what, figures[what], replica.name) for what in ("start", "memory"))
    for what, path in PATHS.items():
        yield what, _requests(lab, path, load), ""


def _requests(lab: Lab, path: str, load: Load) -> float:
    entry = lab.plan.published[0]
    asker = _asker(lab)
    url = f"http://{lab.plan.host(entry.host).address.ip}:{entry.port}{path}"
    # Ready after the services started again; then what is asked for is in the cache as well.
    patience = ("--retry", "20", "--retry-delay", "1", "--retry-all-errors", "--retry-max-time", f"{_READY_S:g}")
    ready = asker.run(("curl", "-sSf", *patience, "-o", "/dev/null", url), timeout=_LOAD_S, check=False)
    if not ready.ok:
        what = f"it does not answer within {_READY_S:g} s: {ready.stderr.strip().rpartition(chr(10))[2]}"
        raise NotReady(Problem(f"{asker.name}: {url}", what, "look at what is wrong: ./lab status; ./lab logs"))
    said = asker.run(("ab", "-q", "-n", str(load.requests), "-c", str(load.at_once), url), timeout=_LOAD_S).stdout
    try:
        return rate(said)
    except ValueError as error:
        hint = "look at what is wrong: ./lab status"
        raise NotReady(Problem(f"{asker.name}: {url}", str(error), hint)) from error


def _asker(lab: Lab) -> Host:
    """Return another host than the entry's, if there is one."""
    entry = lab.plan.published[0].host
    return next((host for name, host in lab.hosts.items() if name != entry), lab.hosts[entry])
