"""A phase as a shell script that a person can read, learn from and run."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator

from provision.resource import Await, Background, Command, Feed, Phase, Step, Write

_WIDTH = 100
_END = "END"


def explain(phase: Phase, host: str) -> str:
    """Return the script. Run as root on a host where nothing of the phase is there, it makes what converge makes."""
    lines = [
        "#!/bin/sh",
        f"# {phase.mark.text}",
        f"# {phase.mark.phase} on {host}, one command at a time. Run it as root, in /vagrant, on a host without it.",
        f"# To take it away again: python3 -m provision remove {phase.mark.phase}",
        "set -eu",
    ]
    if any(resource.notes for resource in phase.resources):
        lines += ["", "# Write down how the host's own settings are now, so that they can be put back."]
        lines += [f"python3 -m provision note {phase.mark.phase}"]
    steps: list[Step] = []
    for number, section in enumerate(phase.sections, start=1):
        if not section.resources:
            continue
        lines += ["", "", f"# {number}. {section.title}", "#"]
        lines += [f"# {line}" for line in textwrap.wrap(section.why, _WIDTH)]
        for resource in section.resources:
            lines += ["", f"# {resource.identity}"]
            for step in resource.say(phase.mark):
                steps.append(step)
                lines += lines_of(step)
    if any(isinstance(step, Background) for step in steps):
        lines += ["", "", "# The supervisor watches a program for a second before it calls it running.", "wait"]
    return "\n".join([*lines, ""])


def lines_of(step: Step) -> Iterator[str]:
    """Yield the lines of a shell script that do a step."""
    match step:
        case Command(argv):
            yield shlex.join(argv)
        case Background(argv):
            yield f"{shlex.join(argv)} &"
        case Await(argv):
            yield f"until {shlex.join(argv)} >/dev/null 2>&1; do sleep 0.1; done"
        case Feed(argv, text):
            yield from _here(shlex.join(argv), text)
        case Write(path, text, mode, owner):
            yield f"mkdir -p {shlex.quote(path.rpartition('/')[0])}"
            yield from _here(f"cat > {shlex.quote(path)}", text)
            if owner != "root":
                yield f"chown {owner}:{owner} {shlex.quote(path)}"
            if mode != 0o644:
                yield f"chmod {mode:o} {shlex.quote(path)}"


def _here(command: str, text: str) -> Iterator[str]:
    yield f"{command} <<'{_END}'"
    yield from text.removesuffix("\n").split("\n")
    yield _END
