"""testinfra for every machine of a lab, through the same door as everything else: ``Machine.run``.

So a command has the time-out of the plan, and no daemon, key or connection is needed on the host.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from testinfra.backend.base import BaseBackend, CommandResult

from underlay.hosts.base import Machine


class MachineBackend(BaseBackend):  # type: ignore[misc] # testinfra is not marked as typed
    """Runs testinfra's commands with a shell on a machine, or in a place of it.

    ``enter`` are the words that put a command into that place (``ip netns exec edge-1``), ``place`` is its name.
    """

    NAME = "underlay"

    def __init__(self, machine: Machine, enter: Sequence[str] = (), place: str = "") -> None:
        self.machine = machine
        self.enter = tuple(enter)
        super().__init__(f"{machine.name}/{place}" if place else machine.name)

    def run(self, command: str, *args: str, **kwargs: object) -> CommandResult:
        """Run a shell command, in which each ``%s`` is replaced by an argument, quoted; testinfra calls this.

        Raises ProgramTimedOut, and NotReady when the host is off.
        """
        del kwargs  # testinfra passes `encoding` to backends that decode by themselves
        line = command % tuple(shlex.quote(arg) for arg in args) if args else command
        done = self.machine.run([*self.enter, "/bin/sh", "-c", line], check=False)
        return self.result(done.returncode, line.encode(), done.stdout.encode(), done.stderr.encode())

    def get_encoding(self) -> str:
        """Return UTF-8: ``Machine.run`` has decoded the output."""
        return "utf-8"
