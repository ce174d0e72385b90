"""Whether this machine can hold a lab of namespace hosts: every obstacle at once, each found by trying."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from underlay import mountinfo, needs, packages, process
from underlay.errors import NotReady, Problem
from underlay.hosts.namespace import cgroups
from underlay.hosts.namespace.state import DIRECTORY_VARIABLE, state_directory
from underlay.mountinfo import Mount

_MACHINE = "this machine"
#: The namespaces of a host, as options of unshare(1).
_KINDS = ("mount", "uts", "ipc", "net", "pid", "cgroup")
_BRIDGED = Path("/proc/sys/net/bridge")
_SECONDS = 10.0
_CONTAINER = "an unprivileged container cannot hold a lab: use a machine of your own, or `docker run --privileged`"


def preflight() -> list[Problem]:
    """Return what keeps this machine from holding a lab; an empty list when nothing does.

    Loads the module br_netfilter when it is missing (tiers filter bridged frames), and then tells it to leave the
    machine's own bridges alone, as they were before. Changes nothing else.
    """
    if os.geteuid() != 0:
        return [Problem(_MACHINE, "only root can make namespace hosts", "run it as root (sudo)")]
    problems = packages.problems(packages.missing(needs.HOSTS))
    for check in (_namespaces, _control_groups, _overlay, _bridged):
        problems += check()
    return problems


def _namespaces() -> list[Problem]:
    refused: dict[str, list[str]] = {}
    for kind in _KINDS:
        if error := _try_unshare(kind):
            refused.setdefault(error, []).append(kind)
    what = [f"new namespaces cannot be made ({', '.join(kinds)}): {error}" for error, kinds in refused.items()]
    if not what and (error := _try_device()):
        what = [f"device files cannot be made: {error}"]  # root of a user namespace is not root
    return [Problem(_MACHINE, text, _CONTAINER) for text in what]


def _try_unshare(kind: str) -> str:
    if shutil.which("unshare") is None:
        return ""  # named already
    # In a process of its own: the caller may have threads, which unshare(2) and fork(2) do not go well with.
    done = process.run(["unshare", f"--{kind}", "true"], timeout=_SECONDS, check=False, where=_MACHINE)
    return "" if done.ok else done.stderr.strip().rpartition(": ")[2] or f"exit code {done.returncode}"


def _try_device() -> str:
    with tempfile.TemporaryDirectory() as directory:
        try:
            os.mknod(Path(directory, "null"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
        except OSError as error:
            return error.strerror or "unknown error"
    return ""


def _control_groups() -> list[Problem]:
    trial = f"{cgroups.lab_group('')}trial.{os.getpid()}"
    try:
        for hierarchy in cgroups.own_hierarchies():
            directory = hierarchy.mount / trial
            directory.mkdir()
            directory.rmdir()
    except NotReady as error:
        return list(error.problems)
    except OSError as error:
        hint = "the control groups must be writable (in a container: `docker run --privileged --cgroupns=private`)"
        return [Problem(str(error.filename), f"a control group cannot be made: {error.strerror}", hint)]
    return []


def _overlay() -> list[Problem]:
    if "overlay" not in _words("/proc/filesystems"):
        _modprobe("overlay")
    if "overlay" not in _words("/proc/filesystems"):
        return [Problem(_MACHINE, "this kernel has no overlayfs", "load it: modprobe overlay")]
    directory = state_directory()
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    kind = filesystem_of(mountinfo.mounts(), existing.resolve())
    if kind in {"overlay", "nfs", "nfs4", "vfat", "9p", "fuse", "virtiofs"}:
        hint = f"set {DIRECTORY_VARIABLE} to a directory on a disk of this machine (ext4, xfs, btrfs)"
        return [Problem(str(directory), f"the disks of hosts cannot lie on {kind}", hint)]
    return []


def filesystem_of(mounts: Sequence[Mount], path: Path) -> str:
    """Return the type of the filesystem that a path without links is on ("" if none of these mounts holds it)."""
    best, kind = -1, ""
    for mount in mounts:
        depth = len(mount.point.parts)
        # Of two mounts on one path the later one is seen.
        if path.is_relative_to(mount.point) and depth >= best:
            best, kind = depth, mount.kind
    return kind


def _bridged() -> list[Problem]:
    if _BRIDGED.exists():
        return []
    _modprobe("br_netfilter")
    if not _BRIDGED.exists():
        hint = "load it: modprobe br_netfilter (in a container: on the machine that runs the container)"
        return [Problem(_MACHINE, "the kernel module br_netfilter is not loaded", hint)]
    for family in ("ip", "ip6", "arp"):
        # The module begins by filtering all bridges; the machine's own were not filtered a moment ago.
        (_BRIDGED / f"bridge-nf-call-{family}tables").write_text("0")
    return []


def _modprobe(module: str) -> None:
    if shutil.which("modprobe") is not None:
        process.run(["modprobe", module], timeout=_SECONDS, check=False, where=_MACHINE)


def _words(path: str) -> list[str]:
    return Path(path).read_text().split()
