"""Stays of the calling thread in network namespaces (setns(2), unshare(2))."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias

from underlay import libc

#: The network namespace of the calling thread (namespaces(7)).
OWN_NET = Path("/proc/thread-self/ns/net")
#: A stay in a network namespace: ends when the context is left.
Place: TypeAlias = AbstractContextManager[None]


@contextmanager
def inside_new() -> Iterator[None]:
    """Run the body with the calling thread in a network namespace made for it, then go back.

    The new one ends with the body unless something holds it: a mount, a socket, an open descriptor.
    """
    home = os.open(OWN_NET, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.unshare(libc.CLONE_NEWNET)
        try:
            yield
        finally:
            libc.setns(home, libc.CLONE_NEWNET)
    finally:
        os.close(home)


@contextmanager
def inside(path: Path) -> Iterator[None]:
    """Run the body with the calling thread in the network namespace at ``path``, then go back."""
    home = os.open(OWN_NET, os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc.setns(there, libc.CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            yield
        finally:
            libc.setns(home, libc.CLONE_NEWNET)
    finally:
        os.close(home)
