"""testinfra for every machine of a lab, through the same door as everything else: ``Machine.run``.

So a command has the time-out of the plan, and no daemon, key or connection is needed on the host.
"""

from __future__ import annotations

import shlex

from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from underlay.hosts.base import Machine


class MachineBackend(BaseBackend):  # type: ignore[misc] # testinfra is not marked as typed
    """Runs testinfra's commands with a shell on a machine, or in one of its network namespaces."""

    NAME = "underlay"

    def __init__(self, machine: Machine, namespace: str | None = None) -> None:
        self._machine = machine
        self._namespace = namespace
        super().__init__(machine.name if namespace is None else f"{machine.name}/{namespace}")

    def run(self, command: str, *args: str, **kwargs: object) -> CommandResult:
        """Run a shell command, in which each ``%s`` is replaced by an argument, quoted; testinfra calls this.

        Raises ProgramTimedOut, and NotReady when the host is off.
        """
        del kwargs  # testinfra passes `encoding` to backends that decode by themselves
        line = command % tuple(shlex.quote(arg) for arg in args) if args else command
        done = self._machine.run(["/bin/sh", "-c", line], check=False, namespace=self._namespace)
        return self.result(done.returncode, line.encode(), done.stdout.encode(), done.stderr.encode())

    def get_encoding(self) -> str:
        """Return UTF-8: ``Machine.run`` has decoded the output."""
        return "utf-8"


def connect(machine: Machine, namespace: str | None = None) -> Host:
    """Return testinfra's view of a machine, or of one of its network namespaces.

    >>> connect(lab.hosts["host1"]).interface("eth1").addresses  # doctest: +SKIP
    ['192.168.56.11']
    """
    return Host(MachineBackend(machine, namespace))
