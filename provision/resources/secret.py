"""Password files: derived from the lab's secret, readable by one user only, never shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from provision import secrets
from provision.marks import Mark
from provision.resource import Command, Resource, Step
from provision.resources.file import TextFile
from provision.resources.user import belonging_to
from provision.system import System


@dataclass(frozen=True, slots=True)
class PasswordFile(Resource):
    """A file that holds the password of ``role``; ``owner`` may read it."""

    path: Path
    role: str
    owner: str

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
        return (Command(("python3", "-m", "provision", "secret", self.role, str(self.path), "--owner", self.owner)),)

    def text(self, system: System) -> str:
        """Return what is in it."""
        return secrets.password(system.mark.places.secret, self.role)

    def _file(self, system: System) -> TextFile:
        return TextFile(self.path, self.text(system), secrets.PASSWORD_MODE, self.owner)
