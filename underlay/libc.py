"""The system calls that Python 3.11 has no functions for, and their flags (linux/sched.h, mount.h, prctl.h).

Every function raises OSError, which says what was refused. Namespaces are the calling thread's.
"""

from __future__ import annotations

import ctypes
import os
import signal
from functools import cache

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
#: The namespaces of a host, by the names that /proc/PID/ns gives them.
NAMESPACES = {
    "mnt": CLONE_NEWNS,
    "cgroup": CLONE_NEWCGROUP,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
}
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE, MS_SHARED = 16384, 1 << 18, 1 << 20
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


@cache
def _c() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(code: int, what: str) -> None:
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave shared namespaces for new ones (unshare(2))."""
    _checked(_c().unshare(flags), f"unshare({flags:#x})")


def setns(descriptor: int, kind: int) -> None:
    """Enter the namespace of that kind (a CLONE_NEW flag) behind a descriptor (setns(2))."""
    _checked(_c().setns(descriptor, kind), f"setns({descriptor}, {kind:#x})")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Attach a filesystem, or change how one is attached (mount(2))."""
    names = (os.fsencode(source), os.fsencode(target), kind.encode())
    _checked(_c().mount(*names, ctypes.c_ulong(flags), os.fsencode(data)), f"mount {source or 'again'} on {target}")


def detach(target: str) -> None:
    """Unmount at once, even if in use (umount2(2), MNT_DETACH)."""
    _checked(_c().umount2(os.fsencode(target), MNT_DETACH), f"unmount {target}")


def pivot_root(new: str, old: str) -> None:
    """Change the root of the mount namespace (pivot_root(2); the C library has no wrapper)."""
    number = _SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(0, f"pivot_root has no known number on {os.uname().machine}")
    _checked(_c().syscall(ctypes.c_long(number), os.fsencode(new), os.fsencode(old)), f"pivot_root to {new}")


def die_with_parent() -> None:
    """Ask for SIGKILL when the parent ends (prctl(2), PR_SET_PDEATHSIG)."""
    _checked(_c().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
