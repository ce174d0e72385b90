"""Files whose text is derived from the lab's secret, each readable by whom it is for: passwords, certificates, keys."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from provision import secrets
from provision.certificates import Paper
from provision.marks import Mark
from provision.resource import Command, Resource, Step
from provision.resources.file import TextFile
from provision.resources.user import belonging_to
from provision.system import System


@dataclass(frozen=True, slots=True)
class DerivedFile(Resource):
    """A file whose text follows from the lab's secret. The text itself is never said, only how it is made."""

    path: Path
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

    @property
    @abstractmethod
    def mode(self) -> int:
        """The mode of the file."""

    @abstractmethod
    def text(self, system: System) -> str:
        """Return what is in it."""

    @abstractmethod
    def words(self, mark: Mark) -> tuple[str, ...]:
        """Return the words for ``python3 -m provision`` that write it, but for its owner."""

    def observe(self, system: System) -> str | None:
        """See Resource."""
        return self._file(system).observe(system)

    def apply(self, system: System) -> None:
        """See Resource."""
        self._file(system).apply(system)

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (Command(("python3", "-m", "provision", *self.words(mark), "--owner", self.owner)),)

    def _file(self, system: System) -> TextFile:
        return TextFile(self.path, self.text(system), self.mode, self.owner)


@dataclass(frozen=True, slots=True)
class PasswordFile(DerivedFile):
    """A file that holds the password of ``role``."""

    role: str

    @property
    def mode(self) -> int:
        """See DerivedFile."""
        return secrets.PASSWORD_MODE

    def text(self, system: System) -> str:
        """See DerivedFile."""
        return secrets.password(system.mark.places.secret, self.role)

    def words(self, mark: Mark) -> tuple[str, ...]:
        """See DerivedFile."""
        return ("secret", self.role, str(self.path))


@dataclass(frozen=True, slots=True)
class Certificate(DerivedFile):
    """A file that holds a certificate or key of the lab's own authority.

    It begins with our mark, which whoever reads PEM passes over (RFC 7468, section 2).
    """

    paper: Paper

    @property
    def mode(self) -> int:
        """See DerivedFile."""
        return self.paper.kind.mode

    def text(self, system: System) -> str:
        """See DerivedFile."""
        return f"{_headline(system.mark)}\n{self.paper.text(system.mark.places.secret, system.timeouts.command)}"

    def words(self, mark: Mark) -> tuple[str, ...]:
        """See DerivedFile."""
        addresses = (word for address in self.paper.addresses for word in ("--address", address))
        own = ("certificate", self.paper.kind.value, self.paper.name, str(self.path))
        return (*own, "--headline", _headline(mark), *addresses)


def stale(files: Sequence[TextFile | DerivedFile], system: System) -> str | None:
    """Return which of the files that something reads is not as planned: then nobody knows what it has read."""
    differences = ((file.path, file.observe(system)) for file in files)
    return next((f"reads {path}, which {what}" for path, what in differences if what), None)


def _headline(mark: Mark) -> str:
    return f"# {mark.text}"
