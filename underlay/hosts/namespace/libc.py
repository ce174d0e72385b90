"""The system calls that Python 3.11 has no functions for, and their flags (linux/sched.h, linux/mount.h)."""

from __future__ import annotations

import ctypes
import os
import signal

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
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


class Libc:
    """The C library's wrappers; every method raises OSError when the kernel refuses."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def unshare(self, flags: int) -> None:
        """Leave shared namespaces (unshare(2))."""
        self._check(self._libc.unshare(flags))

    def mount(self, source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
        """Mount (mount(2)); the target directory is made when it is missing."""
        code = self._libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
        self._check(code, target)

    def detach(self, target: str) -> None:
        """Unmount at once, even if in use (umount2(2), MNT_DETACH)."""
        self._check(self._libc.umount2(target.encode(), MNT_DETACH), target)

    def pivot_root(self, new: str, old: str) -> None:
        """Change the root of the mount namespace (pivot_root(2); the C library has no wrapper)."""
        number = _SYS_PIVOT_ROOT.get(os.uname().machine)
        if number is None:
            raise OSError(0, f"pivot_root has no known number on {os.uname().machine}")
        self._check(self._libc.syscall(ctypes.c_long(number), new.encode(), old.encode()), new)

    def die_with_parent(self) -> None:
        """Ask for SIGKILL when the parent ends (prctl(2), PR_SET_PDEATHSIG)."""
        self._check(self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))

    def _check(self, code: int, path: str | None = None) -> None:
        if code != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
