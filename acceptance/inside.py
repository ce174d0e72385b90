"""Network namespaces by path or name, entered for a while; of the standard library alone, since it runs on hosts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def inside(namespace: str | None) -> Iterator[None]:
    """Be in a network namespace for a while: a path of it, or the name of one of ip-netns(8)."""
    if namespace is None:
        yield
        return
    with Path("/run/netns", namespace).open() as there, Path("/proc/self/ns/net").open() as home:
        enter(there.fileno())
        try:
            yield
        finally:
            enter(home.fileno())


def enter(descriptor: int) -> None:
    """Be in the network namespace that a descriptor stands for (setns(2))."""
    if sys.version_info >= (3, 12):
        os.setns(descriptor, os.CLONE_NEWNET)
    else:
        raise RuntimeError("namespaces are entered with os.setns, which Python has since 3.12")
