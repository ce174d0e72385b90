"""Kernel parameters under /proc/sys/net; each network namespace has its own (sysctl(8), Documentation/networking)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from provision.kernel import syscalls
from provision.kernel.network import NETNS_DIR, is_namespace
from provision.marks import Mark
from provision.resource import Command, Found, Resource, Step
from provision.system import System
from underlay.errors import NotReady, Problem

_LEDGER = "sysctl "


@dataclass(frozen=True, slots=True)
class Sysctl(Resource):
    """A parameter like ``net.ipv4.ip_forward``; ``namespace`` None is the host's own.

    What a parameter of the host's own namespace was before goes into the ledger; one that belongs to a link of ours
    (``of_link``) dies with it and needs no entry. ``missing_hint`` says what to do when the kernel has no such one.
    """

    namespace: str | None
    key: str
    value: str
    of_link: str | None = None
    missing_hint: str = ""

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"sysctl {self.namespace}/{self.key}" if self.namespace else f"sysctl {self.key}"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        if self.of_link:
            return (f"link {self.of_link}",)
        return (f"namespace {self.namespace}",) if self.namespace else ()

    @property
    def batched(self) -> bool:
        """See Resource. A parameter of a link needs the link; others need only their namespace."""
        return self.of_link is None

    @property
    def notes(self) -> bool:
        """See Resource."""
        return self.namespace is None and self.of_link is None

    def note(self, system: System) -> None:
        """See Resource."""
        before = self._read()
        if self.notes and before is not None:
            system.ledger.hold(_LEDGER + self.key, before, system.mark.phase)

    def observe(self, system: System) -> str | None:
        """See Resource."""
        seen = self._read()
        if seen is None:
            return "is missing"
        if seen != self.value:
            return f"is {seen}, planned {self.value}"
        if self.notes and _LEDGER + self.key not in system.ledger.held(system.mark.phase):
            return f"is {seen} as planned, but what it was before {system.mark.phase} is not written down"
        return None

    def apply(self, system: System) -> None:
        """See Resource."""
        before = self._read()
        if before is None:
            where = system.network.where(self.namespace)
            raise NotReady(Problem(where, f"this kernel has no parameter {self.key}", self.missing_hint))
        self.note(system)
        with _at(self.namespace):
            _path(self.key).write_text(self.value)

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        place = ("ip", "netns", "exec", self.namespace) if self.namespace else ()
        return (Command((*place, "sysctl", "-qw", f"{self.key}={self.value}")),)

    def _read(self) -> str | None:
        if self.namespace is not None and not is_namespace(NETNS_DIR / self.namespace):
            return None
        with _at(self.namespace):
            path = _path(self.key)
            return path.read_text().strip() if path.exists() else None


def discover(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find the parameters of the host that the phase holds, the last one first, since writing one may reset others.

    Each goes back when no other phase holds it.
    """
    for name in reversed(system.ledger.held(system.mark.phase)):
        if name.startswith(_LEDGER):
            yield Found(name, _restorer(name.removeprefix(_LEDGER)))


def _restorer(key: str) -> Callable[[System], None]:
    def restore(system: System) -> None:
        system.ledger.let_go(_LEDGER + key, system.mark.phase, put_back)

    def put_back(before: str) -> None:
        if _path(key).exists():  # else it went with its kernel module
            _path(key).write_text(before)

    return restore


def _at(namespace: str | None) -> syscalls.Place:
    return nullcontext() if namespace is None else syscalls.inside(NETNS_DIR / namespace)


def _path(key: str) -> Path:
    # No link of ours has a dot in its name, so dots always separate directories.
    return Path("/proc/sys", *key.split("."))
