"""Provisioning as anybody uses it: a command on a host, its exit code, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from underlay.errors import Exit
from underlay.hosts.base import Machine
from underlay.hosts.provisioning import WAITS
from underlay.phases import PHASES
from underlay.topology import Plan
from underlay.wait import NotYet, until

#: The module that provisions a host.
PROGRAM = "provision"
#: The same with one phase more, which is the tests' own.
ONE_MORE = "tests.provision.second"
#: The host's own program that brings the phases back; what the supervisor says when it has, or where there is none.
_BOOT, _AT_REST = "underlay-boot", ("EXITED", "FATAL", "STOPPED", "no such process")
_LISTS = ("changes", "differences", "removed")


@dataclass(frozen=True, slots=True)
class Report:
    """What a run said: its exit code, the resources it named, what it advises for them, and all of its output."""

    exit_code: int
    resources: tuple[str, ...]
    output: str
    remedies: Mapping[str, str]

    def __str__(self) -> str:
        return f"exit {self.exit_code}: {self.output.strip()[-2000:]}"


def command(verb: str, phase: str, *options: str, program: str = PROGRAM) -> tuple[str, ...]:
    """Return the words that run a verb on a host, in the directory of the repository."""
    return ("python3", "-m", program, verb, phase, *options)


def provision(
    machine: Machine, verb: str, phase: str = "phase1", *, wait: bool = True, program: str = PROGRAM
) -> Report:
    """Run a verb to its end and return its report, whatever its exit code.

    AssertionError if it says good (0), or that a check failed (1), without a word on what it has found.
    """
    options: Sequence[str] = ("--json",) if wait or verb != "converge" else ("--json", "--no-wait")
    words = command(verb, phase, *options, program=program)
    done = machine.run(words, check=False, timeout=machine.timeouts.ready * WAITS)
    return read_report(machine.name, done.returncode, done.stdout, done.stderr)


def phases_on(machine: Machine, program: str) -> frozenset[str]:
    """Return the phases that a host says are on, of those that the program knows."""
    said = machine.run(("python3", "-m", program, "status")).stdout
    return frozenset(json.loads(said)["phases"])


def settled(machine: Machine, plan: Plan) -> None:
    """Wait until a host that has just started has brought back all phases that were on. NotReady if it does not."""

    def probe() -> bool | NotYet:
        said = machine.run(["supervisorctl", "status", _BOOT], check=False).stdout.strip()
        return True if any(state in said for state in _AT_REST) else NotYet(said)

    limit = plan.timeouts.ready * WAITS * len(PHASES)  # one run of provisioning for each
    until(probe, deadline_s=limit, what="the end of its boot", where=machine.name, slowest=1.0)


def read_report(where: str, exit_code: int, stdout: str, stderr: str = "") -> Report:
    """Return the report of a run with ``--json``. AssertionError as :func:`provision` says."""
    try:
        data = json.loads(stdout)
    except ValueError:
        data = {}
    found: list[list[dict[str, str]]] = [data[key] for key in _LISTS if key in data]
    items = [item for each in found for item in each]
    names = tuple(dict.fromkeys(str(item["resource"]) for item in items))
    remedies = {str(item["resource"]): str(item.get("remedy", "")) for item in items}
    report = Report(exit_code, names, stdout + stderr, remedies)
    assert found or exit_code not in {Exit.GOOD, Exit.CHECK_FAILED}, f"{where}: expected: a report; seen: {report}"
    return report
