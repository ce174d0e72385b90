"""Images, pulled by digest from a registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from provision.marks import Mark
from provision.resource import Command, Found, Resource, Step
from provision.resources.docker.kernel import SILENT
from provision.system import System
from underlay import durable


@dataclass(frozen=True, slots=True)
class PulledImage(Resource):
    """An image by a reference with its digest, ``host1:5000/underlay/gateway@sha256:...``.

    What was pulled is written down before: an image carries no mark of a host's.
    """

    reference: str
    on: tuple[str, ...]

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"Docker image {self.reference}"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return self.on

    @property
    def notes(self) -> bool:
        """See Resource."""
        return True

    def note(self, system: System) -> None:
        """See Resource."""
        known = _noted(system)
        if self.reference not in known:
            _note(system, (*known, self.reference))

    def observe(self, system: System) -> str | None:
        """See Resource."""
        if not system.docker.answers():
            return SILENT
        if system.docker.find("images", self.reference, "/json") is None:
            return "is missing"
        return None if self.reference in _noted(system) else "is there, but not written down as pulled"

    def apply(self, system: System) -> None:
        """See Resource."""
        system.docker.wait(system.timeouts.ready)
        self.note(system)
        if system.docker.find("images", self.reference, "/json") is None:
            system.run("docker", "pull", "--quiet", self.reference)

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (Command(("docker", "pull", "--quiet", self.reference)),)


def discover(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find what was pulled."""
    for reference in _noted(system):
        yield Found(f"Docker image {reference}", _remover(reference))


def _remover(reference: str) -> Callable[[System], None]:
    def remove(system: System) -> None:
        # One that somebody else's container stands on stays, and is his from now on.
        # If there is no daemon, there has been none: it was only written down.
        if system.docker.answers() and system.docker.find("images", reference, "/json") is not None:
            system.run("docker", "image", "rm", reference, check=False)
        _note(system, tuple(item for item in _noted(system) if item != reference))

    return remove


def _record(mark: Mark) -> Path:
    return mark.state / "images.json"


def _noted(system: System) -> tuple[str, ...]:
    try:
        found: list[str] = json.loads(_record(system.mark).read_text())
    except FileNotFoundError:
        return ()
    return tuple(found)


def _note(system: System, references: Sequence[str]) -> None:
    path = _record(system.mark)
    if not references:
        durable.remove(path)
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(path, json.dumps(sorted(references), indent=1) + "\n")
