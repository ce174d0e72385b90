"""What a machine holds, before and after: the proof that taking a lab down leaves nothing.

Everything is read from the kernel; nothing of a lab's own record is believed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from underlay import mountinfo, process
from underlay.errors import NotReady
from underlay.hosts.namespace import cgroups
from underlay.hosts.namespace.processes import all_pids, command_of, identify, namespace_of
from underlay.hosts.namespace.state import MACHINE_S, run_directory, state_directory
from underlay.hosts.vagrant import environment as vmenv
from underlay.hosts.vagrant import labs as vagrant
from underlay.hosts.vagrant import places, sockets
from underlay.mountinfo import Mount

_PROC_NET = Path("/proc/sys/net")
#: Settings that the kernel changes by itself: counts and statistics.
_RESTLESS = re.compile(r"nf_conntrack_count$|\bdentry|/flush$|nf_conntrack_max$")
_RULES = (("iptables-save",), ("ip6tables-save",), ("nft", "list", "ruleset"))
#: The root of an nsfs mount is the namespace itself.
_NAMESPACE = re.compile(r"net:\[(\d+)\]")
#: What changes in a list of rules without a rule changing: counters, and the time in a comment.
_COUNTERS = re.compile(r"\[\d+:\d+\]|packets \d+ bytes \d+|^#.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MachineState:
    """What a machine holds, by kind; each maps a name to its value ("" where being there is all)."""

    namespaces: Mapping[str, str]
    """Network namespaces that a process is in or that are mounted somewhere, by inode."""
    links: Mapping[str, str]
    """Interfaces of the machine's own network namespace."""
    mounts: Mapping[str, str]
    """Mount points, with the type of filesystem."""
    cgroups: Mapping[str, str]
    """Directories of control groups."""
    processes: Mapping[str, str]
    """Processes in a lab's control group, or in another network namespace than the one that looks."""
    rules: Mapping[str, str]
    """Packet filter rules, a text for each tool; empty where it is not installed."""
    sysctls: Mapping[str, str]
    """Network settings."""
    files: Mapping[str, str]
    """What Underlay keeps about labs."""


def machine_snapshot() -> MachineState:
    """Return what the machine holds now, as seen from the caller's own namespaces. Needs root; takes about 0.1 s."""
    mounts = mountinfo.mounts()
    return MachineState(
        namespaces=_namespaces(mounts),
        links={name: "" for _, name in socket.if_nameindex()},
        mounts=mount_points(mounts),
        cgroups=_cgroups(mounts),
        processes=_processes(),
        rules=dict(_rules()),
        sysctls=dict(_sysctls()),
        files={str(path): "" for path in _files()},
    )


def diff(before: MachineState, after: MachineState) -> list[str]:
    """Return a line for each difference, sorted within each kind; an empty list when nothing differs."""
    lines = []
    for field in fields(MachineState):
        old: Mapping[str, str] = getattr(before, field.name)
        new: Mapping[str, str] = getattr(after, field.name)
        kind = field.name
        for name in sorted(old.keys() | new.keys()):
            if name not in old:
                lines.append(f"{kind}: {name} is new" + (f" ({new[name]})" if _short(new[name]) else ""))
            elif name not in new:
                lines.append(f"{kind}: {name} is gone")
            elif old[name] != new[name]:
                lines.append(f"{kind}: {name} changed: {_change(old[name], new[name])}")
    return lines


def mount_points(mounts: Sequence[Mount]) -> dict[str, str]:
    """Return the mount points with their types; a path mounted twice has both."""
    found: dict[str, str] = {}
    for mount in mounts:
        path = str(mount.point)
        found[path] = f"{found[path]}+{mount.kind}" if path in found else mount.kind
    return found


def without_counters(rules: str) -> str:
    """Return a list of rules without what changes by itself."""
    return _COUNTERS.sub("", rules)


def _namespaces(mounts: Sequence[Mount]) -> dict[str, str]:
    mounted = [match[1] for mount in mounts if (match := _NAMESPACE.fullmatch(mount.root))]
    used = [str(inode) for pid in all_pids() if (inode := namespace_of(pid, "net"))]
    named = [str(path.stat().st_ino) for path in Path("/run/netns").glob("*")]
    return dict.fromkeys([*mounted, *used, *named], "")


def _cgroups(mounts: Sequence[Mount]) -> dict[str, str]:
    found = cgroups.hierarchies(mounts)
    return {directory: "" for hierarchy in found for directory, _, _ in os.walk(hierarchy.mount)}


def _processes() -> dict[str, str]:
    own = namespace_of(os.getpid(), "net")
    seen = {}
    for pid in all_pids():
        process_now = identify(pid)
        try:
            marked = f"/{cgroups.lab_group('')}" in Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            continue
        if process_now is not None and (marked or namespace_of(pid, "net") not in {None, own}):
            seen[f"{pid}, started {process_now.started}"] = command_of(pid)
    return seen


def _rules() -> Iterator[tuple[str, str]]:
    for argv in _RULES:
        if shutil.which(argv[0]) is None:
            yield argv[0], ""  # installed meanwhile, it has no rules to show either
            continue
        try:
            yield argv[0], without_counters(process.run(argv, timeout=MACHINE_S, where="this machine").stdout)
        except NotReady as error:
            yield argv[0], f"cannot be read: {error}"  # a kernel without tables; the same before and after


def _sysctls() -> Iterator[tuple[str, str]]:
    for directory, _, names in os.walk(_PROC_NET):
        for name in names:
            path = Path(directory, name)
            if _RESTLESS.search(str(path)):
                continue
            try:
                yield str(path.relative_to(_PROC_NET.parent)).replace("/", "."), path.read_text().strip()
            except OSError:
                continue  # a setting that can only be written, or whose interface has just gone


def _files() -> Iterator[Path]:
    yield from (state_directory() / "labs").glob("*")
    yield from run_directory().glob("*")
    yield from places.run_directory().glob("*")
    files = (vmenv.files_directory(), vagrant.own_directory(), vagrant.handover_directory())
    yield from (place for place in files if place.exists())
    yield from sockets.all_socket_directories()


def _short(text: str) -> bool:
    return bool(text) and "\n" not in text


def _change(old: str, new: str) -> str:
    if "\n" not in old and "\n" not in new:
        return f"{old} -> {new}"
    before, after = old.splitlines(), new.splitlines()
    lost, won = [line for line in before if line not in after], [line for line in after if line not in before]
    return "; ".join([*(f"- {line}" for line in lost), *(f"+ {line}" for line in won)]) or "another order"


def to_json(state: MachineState) -> str:
    """Return the state as JSON text."""
    return json.dumps({field.name: dict(getattr(state, field.name)) for field in fields(MachineState)}, indent=1)


def from_json(text: str) -> MachineState:
    """Return the state that :func:`to_json` wrote; KeyError or TypeError if the text is something else."""
    data: dict[str, dict[str, str]] = json.loads(text)
    return MachineState(**{field.name: data[field.name] for field in fields(MachineState)})
