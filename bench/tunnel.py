"""Measure what the tunnel of phase 3 costs: beside the underlay that it goes over, and a cable on one host.

The ways take turns, and every other round goes through them backwards, so that what else the machine does at the time
meets them all.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median

from bench.shop import Progress
from bench.stream import PATIENCE
from underlay.errors import InputError, NotReady, Problem
from underlay.hosts.base import Host, Lab
from underlay.topology import Flow, Stretched, across

_STREAM = Path(__file__).with_name("stream.py")
#: What the raw data's numbers mean; it stands in the file, so that it explains itself.
DEFINITIONS = {
    "cable": "from a host into a namespace of its own, by its bridge and a veth pair",
    "underlay": "from one host to the other",
    "tunnel": "from a namespace of one host to a namespace of the other, by VXLAN",
    "throughput": "bytes a second of one TCP connection, until the last was read",
    "trip": "seconds from one byte sent to the same byte back, the median of many",
}


@dataclass(frozen=True, slots=True)
class End:
    """One end of a way: a host, or a namespace of it (None: its own network)."""

    host: Host
    namespace: str | None


@dataclass(frozen=True, slots=True)
class Way:
    """Where bytes go: from one end to the other, at an address and a port."""

    name: str
    source: End
    target: End
    address: IPv4Address
    port: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure: of which way, in which round, of what."""

    way: str
    round: int
    what: str
    value: float


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that was measured, and where; ``hosts`` is what the hosts say of themselves."""

    kernel: str
    cpus: int
    rounds: int
    hosts: Mapping[str, Mapping[str, str]]
    samples: tuple[Sample, ...]

    def median(self, way: str, what: str) -> float:
        """Return the median of one figure over all rounds."""
        return median(sample.value for sample in self.samples if (sample.way, sample.what) == (way, what))

    def as_json(self) -> str:
        """Return everything as JSON: definitions, machine, each single figure."""
        return json.dumps({"definitions": DEFINITIONS, **asdict(self)}, indent=1) + "\n"


def measure_tunnel(lab: Lab, rounds: int, progress: Progress) -> Result:
    """Measure; nothing of the lab is changed.

    Raises InputError for numbers that give no figure and for a plan without a tunnel, NotReady when nobody answers.
    """
    stretched = across(lab.plan)
    flow = _crossing(stretched)
    problems = [Problem("--rounds", f"{rounds} is no number to measure with", "give 1 or more")] if rounds < 1 else []
    if flow is None:
        hint = "give it a flow from a gateway to a product service, and two hosts"
        problems.append(Problem(f"lab {lab.plan.lab}", "by its plan nobody talks through the tunnel", hint))
    if problems or flow is None:
        raise InputError(*problems)
    samples: list[Sample] = []
    ways = _ways(lab, stretched, flow)
    for number in range(1, rounds + 1):
        progress(number, rounds)
        for way in ways if number % 2 else reversed(ways):
            samples += (Sample(way.name, number, what, value) for what, value in _one(way).items())
    hosts = {name: dict(lab.hosts[name].facts()) for name in stretched.bridges}
    return Result(platform.release(), os.cpu_count() or 1, rounds, hosts, tuple(samples))


def _crossing(stretched: Stretched) -> Flow | None:
    """Return the first flow whose ends stand on two hosts: some callers may stand where those are whom they call."""
    hosts = {service.name: service.host for service in stretched.plan.services}
    return next((flow for flow in stretched.plan.flows if hosts[flow.source] != hosts[flow.target]), None)


def _ways(lab: Lab, stretched: Stretched, flow: Flow) -> Sequence[Way]:
    plan = stretched.plan
    source, target = plan.service(flow.source), plan.service(flow.target)
    caller, called = source.replicas[0], target.replicas[0]
    here, there = lab.hosts[source.host], lab.hosts[target.host]
    return (
        Way("cable", End(here, None), End(here, caller.namespace), caller.ip, source.port),
        # A number that is the tunnel's by UDP; nobody has it by TCP.
        Way("underlay", End(here, None), End(there, None), there.address, plan.tunnel.port),
        Way("tunnel", End(here, caller.namespace), End(there, called.namespace), called.ip, target.port),
    )


def _one(way: Way) -> Mapping[str, float]:
    def run(end: End, what: str) -> str:
        argv = ("python3", "-P", "-", what, str(way.address), str(way.port))
        text = _STREAM.read_text(encoding="utf-8")
        done = end.host.run(argv, stdin=text, namespace=end.namespace, timeout=3 * PATIENCE, check=False)
        if not done.ok:
            said = done.stderr.strip().rpartition("\n")[2] or "it said nothing"
            hint = "is the phase on? ./lab status; ./lab converge phase3"
            raise NotReady(Problem(f"{end.host.name}: {way.name}", said, hint))
        return done.stdout

    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(run, way.target, "take")
        gave = run(way.source, "give")
        taking.result()
    figures: Mapping[str, float] = json.loads(gave)
    return figures
