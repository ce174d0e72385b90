"""Certificates of the lab's own authority, and their keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from provision.certificates import Paper
from provision.marks import Mark
from provision.resource import Command, Resource, Step
from provision.resources.file import TextFile
from provision.resources.user import belonging_to
from provision.system import System


@dataclass(frozen=True, slots=True)
class Certificate(Resource):
    """A file that holds one. It begins with our mark, which whoever reads PEM passes over (RFC 7468, section 2)."""

    path: Path
    paper: Paper
    owner: str = "root"

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"file {self.path}"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return belonging_to(self.owner)

    @property
    def batched(self) -> bool:
        """See Resource."""
        return True

    def observe(self, system: System) -> str | None:
        """See Resource."""
        return self._file(system).observe(system)

    def apply(self, system: System) -> None:
        """See Resource."""
        self._file(system).apply(system)

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        addresses = (word for address in self.paper.addresses for word in ("--address", address))
        words = ("certificate", self.paper.kind.value, self.paper.name, str(self.path), "--owner", self.owner)
        return (Command(("python3", "-m", "provision", *words, "--headline", _headline(mark), *addresses)),)

    def _file(self, system: System) -> TextFile:
        text = f"{_headline(system.mark)}\n{self.paper.text(system.mark.places.secret)}"
        return TextFile(self.path, text, self.paper.kind.mode, self.owner)


def _headline(mark: Mark) -> str:
    return f"# {mark.text}"
