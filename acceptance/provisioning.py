"""Provisioning as anybody uses it: a command on a host, its exit code, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from underlay.hosts.base import Machine

#: The module that provisions a host.
PROGRAM = "provision"
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
    """Run a verb to its end and return its report; any exit code is a report."""
    options: Sequence[str] = ("--json",) if wait or verb != "converge" else ("--json", "--no-wait")
    done = machine.run(command(verb, phase, *options, program=program), check=False)
    try:
        data = json.loads(done.stdout)
    except ValueError:
        data = {}
    items: list[dict[str, str]] = next((data[key] for key in _LISTS if key in data), [])
    names = tuple(dict.fromkeys(str(item["resource"]) for item in items))
    remedies = {str(item["resource"]): str(item["remedy"]) for item in items}
    return Report(done.returncode, names, done.stdout + done.stderr, remedies)
