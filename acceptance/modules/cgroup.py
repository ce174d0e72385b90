"""Control groups: what a group of processes may use, and what the kernel says that it has used."""

from __future__ import annotations

from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from testinfra.modules.base import Module

if TYPE_CHECKING:
    from acceptance.modules import LabHost

#: Where a number of version 1 stands in version 2, if it has another name and is written alike
#: (Documentation/admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst).
_MEMORY = ("memory.limit_in_bytes", "memory.max")
_MICROSECONDS = 1_000_000
_NANOSECONDS = 1_000_000_000


class Cgroup(Module):  # type: ignore[misc] # testinfra is not marked as typed
    """The control group that a process is in, by the process's number; of version 1 or 2, whichever limits it.

    >>> group = host.cgroup(4242)
    >>> group.memory, group.cpus, group.pids
    (134217728, 0.5, 64)
    """

    _host: LabHost

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @cached_property
    def _paths(self) -> dict[str, str]:
        """The path of the group in each hierarchy: by controller, and "" for that of version 2 (cgroups(7))."""
        lines = self._host.check_output("cat /proc/%s/cgroup", str(self.pid)).splitlines()
        fields = (line.split(":", 2) for line in lines)
        return {name: path for _, names, path in fields for name in names.split(",")}

    @cached_property
    def _mounts(self) -> dict[str, PurePosixPath]:
        """Where each hierarchy is mounted, called as above (proc_pid_mountinfo(5))."""
        found: dict[str, PurePosixPath] = {}
        for line in self._host.check_output("cat /proc/self/mountinfo").splitlines():
            place, _, kind = line.partition(" - ")
            where, (of, _, options) = PurePosixPath(place.split()[4]), kind.split(" ", 2)
            if of == "cgroup2":
                found[""] = where
            elif of == "cgroup":
                found |= dict.fromkeys(options.split(","), where)
        return found

    @cached_property
    def version(self) -> int:
        """Which one limits it: 1 or 2."""
        return 1 if "memory" in self._paths else 2

    def _read(self, controller: str, name: str) -> str:
        key = controller if self.version == 1 else ""
        path = self._mounts[key] / self._paths[key].lstrip("/") / name
        return str(self._host.check_output("cat %s", str(path)))

    def _numbers(self, controller: str, name: str) -> dict[str, int]:
        words = (line.split() for line in self._read(controller, name).splitlines())
        return {key: int(value) for key, value in words}

    @property
    def memory(self) -> int:
        """How many bytes it may use."""
        return int(self._read("memory", _MEMORY[self.version - 1]))

    @property
    def swap(self) -> int:
        """How many bytes besides it may have moved to the disk."""
        if self.version == 2:
            return int(self._read("memory", "memory.swap.max"))
        return int(self._read("memory", "memory.memsw.limit_in_bytes")) - self.memory

    @property
    def killed(self) -> int:
        """How many of its processes were killed since there was no more memory for it."""
        return self._numbers("memory", ("memory.oom_control", "memory.events")[self.version - 1])["oom_kill"]

    @property
    def period(self) -> float:
        """The seconds of one of the periods in which its time is counted."""
        if self.version == 2:
            return int(self._read("cpu", "cpu.max").split()[1]) / _MICROSECONDS
        return int(self._read("cpu", "cpu.cfs_period_us")) / _MICROSECONDS

    @property
    def cpus(self) -> float:
        """How many processors' time it may use."""
        if self.version == 2:
            quota, period = self._read("cpu", "cpu.max").split()
            return int(quota) / int(period)
        return int(self._read("cpu", "cpu.cfs_quota_us")) / _MICROSECONDS / self.period

    @property
    def seconds(self) -> float:
        """How much processor time it has used."""
        if self.version == 2:
            return self._numbers("cpu", "cpu.stat")["usage_usec"] / _MICROSECONDS
        return int(self._read("cpuacct", "cpuacct.usage")) / _NANOSECONDS

    @property
    def periods(self) -> tuple[int, int]:
        """In how many periods it wanted to run, and in how many of these it had to stop."""
        found = self._numbers("cpu", "cpu.stat")
        return found["nr_periods"], found["nr_throttled"]

    @property
    def pids(self) -> int:
        """How many processes and threads it may have."""
        return int(self._read("pids", "pids.max"))

    @property
    def refused(self) -> int:
        """How many processes and threads it could not start since it had as many as it may have."""
        return self._numbers("pids", "pids.events")["max"]
