"""The mark that a lab leaves on its processes: a control group for each lab, and one below it for each host.

A process cannot leave its control group by forking, changing its session or its namespaces, so whatever a host has
started is found here, even when nobody had time to write a process number down. The groups stand at the top of each
mounted hierarchy: a group below the caller's own would end with the caller's session. See cgroups(7).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from underlay import mountinfo
from underlay.errors import NotReady, Problem
from underlay.hosts.namespace.processes import Process, identify
from underlay.hosts.namespace.state import run_directory
from underlay.mountinfo import Mount
from underlay.wait import NotYet, until

#: On cgroup v2 a group that passes controllers on must hold no processes itself, so those of a host are in a leaf.
LEAF = "init"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted tree of control groups.

    ``mount`` is where this machine sees it, ``place`` where a host sees its own part below /sys/fs/cgroup ("" for
    /sys/fs/cgroup itself), ``aliases`` are the other names of a v1 hierarchy that holds several controllers.
    """

    mount: Path
    version: int
    place: str
    aliases: tuple[str, ...] = ()


def hierarchies(mounts: Sequence[Mount]) -> tuple[Hierarchy, ...]:
    """Return the hierarchies among these mounts, each once, v1 first.

    A machine has v1 hierarchies, one v2 tree, or both (then v2 carries no controllers: "hybrid").
    """
    seen: dict[str, Mount] = {}
    for mount in mounts:
        if mount.kind in {"cgroup", "cgroup2"}:
            # The same tree may be mounted twice; the first is where programs look for it.
            seen.setdefault(mount.device, mount)
    first = [mount for mount in seen.values() if mount.kind == "cgroup"]
    second = [mount.point for mount in seen.values() if mount.kind == "cgroup2"]
    found = [Hierarchy(mount.point, 1, mount.point.name, _aliases(mount)) for mount in first]
    found += [Hierarchy(point, 2, point.name if first else "") for point in second[:1]]
    return tuple(found)


def own_hierarchies() -> tuple[Hierarchy, ...]:
    """Return the hierarchies of this machine; NotReady when there is none."""
    found = hierarchies(mountinfo.mounts())
    if not found:
        raise NotReady(
            Problem("this machine", "no control groups are mounted", "mount them: mount -t cgroup2 none /sys/fs/cgroup")
        )
    return found


def lab_group(lab: str) -> str:
    """Return the name of a lab's group in each hierarchy."""
    return f"{run_directory().name}-{lab}"


def lab_directories(lab: str, found: Sequence[Hierarchy]) -> tuple[Path, ...]:
    """Return a lab's directories, one in each hierarchy."""
    return tuple(hierarchy.mount / lab_group(lab) for hierarchy in found)


def make(lab: str, host: str, found: Sequence[Hierarchy]) -> tuple[Path, ...]:
    """Make the groups of a host, and return their directories in the order of ``found``. No error if they exist."""
    made = []
    for hierarchy in found:
        upper = hierarchy.mount / lab_group(lab)
        lower = upper / host
        for directory in (upper, lower):
            directory.mkdir(exist_ok=True)
            if hierarchy.version == 1:
                _copy_cpuset(directory)
        if hierarchy.version == 2:
            # The lab's group has no processes, so it may pass on all that the machine's top passes to it.
            pass_on_controllers(upper)
        made.append(lower)
    return tuple(made)


def pass_on_controllers(directory: Path) -> None:
    """Let the groups below a v2 group have all the controllers that it has itself."""
    for controller in (directory / "cgroup.controllers").read_text().split():
        (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def members(directories: Sequence[Path]) -> frozenset[int]:
    """Return the processes in these groups and in all groups below them."""
    pids: set[int] = set()
    for top in directories:
        for directory, _, _ in os.walk(top):
            pids.update(_pids(Path(directory)))
    return frozenset(pids - {0, os.getpid()})


def kill_all(directories: Sequence[Path], *, deadline_s: float, where: str) -> None:
    """Kill every process in these groups and below, and wait until none is left; NotReady if some stay."""
    groups = {_key(directory) for directory in directories}

    def probe() -> NotYet | bool:
        left = members(directories)
        for pid in left:
            process = identify(pid)
            if process is not None:
                _kill_member(process, groups)
        return NotYet(f"processes {sorted(left)}") if left else True

    until(probe, deadline_s=deadline_s, what="the end of all processes", where=where)


def remove(directories: Sequence[Path], *, deadline_s: float, where: str) -> None:
    """Remove these groups with all groups below them (a container engine makes some); they must be empty."""

    def probe() -> NotYet | bool:
        for top in directories:
            for directory, _, _ in os.walk(top, topdown=False):
                try:
                    Path(directory).rmdir()
                except FileNotFoundError:
                    continue
                except OSError as error:
                    # EBUSY: the kernel has not finished with a process that has just ended.
                    return NotYet(f"{directory}: {error.strerror}")
        return True

    until(probe, deadline_s=deadline_s, what="the removal of the control groups", where=where)


def in_group(cgroup: str, group: str) -> bool:
    """Whether a /proc/PID/cgroup text shows a process in that group (``underlay-x`` or ``underlay-x/host1``) or below.

    The path may begin anywhere: what a process sees depends on its own cgroup namespace.
    """
    return any(f"/{group}/" in line.split(":", 2)[-1] + "/" for line in cgroup.splitlines())


def _key(directory: Path) -> str:
    of_host = directory.parent.name.startswith(lab_group(""))
    return f"{directory.parent.name}/{directory.name}" if of_host else directory.name


def _kill_member(process: Process, groups: set[str]) -> None:
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # The number may have changed hands since the list was read: ask again, now that the descriptor holds it.
        text = Path(f"/proc/{process.pid}/cgroup").read_text()
        if any(in_group(text, group) for group in groups):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        return
    finally:
        os.close(descriptor)


def _pids(directory: Path) -> list[int]:
    try:
        return [int(word) for word in (directory / "cgroup.procs").read_text().split()]
    except OSError:
        return []  # removed meanwhile, or a threaded v2 group, whose processes its parent lists


def _copy_cpuset(directory: Path) -> None:
    # A new v1 cpuset is empty, and an empty one takes no processes (cpuset(7)).
    for name in ("cpuset.cpus", "cpuset.mems"):
        target = directory / name
        if target.exists() and not target.read_text().strip():
            target.write_text((directory.parent / name).read_text().strip())


def _aliases(mount: Mount) -> tuple[str, ...]:
    names = mount.point.name.split(",")
    return tuple(name for name in mount.super_options.split(",") if name in names and name != mount.point.name)
