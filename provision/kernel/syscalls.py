"""The system calls that Python's standard library lacks before 3.12: setns(2), unshare(2), mount(2), umount2(2)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import TypeAlias

CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_SHARED, MS_PRIVATE = 0x1000, 0x4000, 1 << 20, 1 << 18  # include/uapi/linux/mount.h
MNT_DETACH = 2

#: The network namespace of the calling thread (namespaces(7)).
OWN_NET = Path("/proc/thread-self/ns/net")


#: A stay in a network namespace: ends when the context is left.
Place: TypeAlias = AbstractContextManager[None]


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def setns(descriptor: int, kind: int = CLONE_NEWNET) -> None:
    """Move the calling thread into the namespace behind ``descriptor``; OSError if refused."""
    _checked(_libc().setns(descriptor, kind), "setns")


def unshare(flags: int = CLONE_NEWNET) -> None:
    """Give the calling thread new namespaces; OSError if refused."""
    _checked(_libc().unshare(flags), "unshare")


def mount(source: str, target: str, flags: int, filesystem: str = "none") -> None:
    """Attach a filesystem or change how one is attached, see man 2 mount; OSError if refused."""
    _checked(
        _libc().mount(source.encode(), target.encode(), filesystem.encode(), ctypes.c_ulong(flags), None),
        f"mount {source} on {target}",
    )


def unmount(target: str) -> None:
    """Unmount lazily, see umount2(2); OSError if refused."""
    _checked(_libc().umount2(target.encode(), MNT_DETACH), f"unmount {target}")


@contextmanager
def inside_new() -> Iterator[None]:
    """Run the body with the calling thread in a network namespace made for it, then go back.

    The new one ends with the body unless something holds it: a mount, a socket, an open descriptor.
    """
    home = os.open(OWN_NET, os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare()
        try:
            yield
        finally:
            setns(home)
    finally:
        os.close(home)


@contextmanager
def inside(path: Path) -> Iterator[None]:
    """Run the body with the calling thread in the network namespace at ``path``, then go back."""
    home = os.open(OWN_NET, os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            setns(home)
    finally:
        os.close(home)
