"""What a phase is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from provision.marks import Mark
from provision.system import System


@dataclass(frozen=True, slots=True)
class Command:
    """A command as a person would type it."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """A file as a person would write it; ``mode`` like 0o644, ``owner`` a user's name."""

    path: str
    text: str
    mode: int = 0o644
    owner: str = "root"


@dataclass(frozen=True, slots=True)
class Feed:
    """A command that reads ``text`` from its standard input."""

    argv: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Await:
    """A command that is repeated until it succeeds."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Background:
    """A command that nobody waits for before the end of the script."""

    argv: tuple[str, ...]


Step: TypeAlias = Command | Write | Feed | Await | Background


class Resource(ABC):
    """One thing that should be on a host. It knows how to look, to make, and to say itself as shell commands."""

    __slots__ = ()

    @property
    @abstractmethod
    def identity(self) -> str:
        """The name in messages, unique on the host: ``namespace gateway-1``."""

    @property
    def provides(self) -> tuple[str, ...]:
        """What others may stand on, by name; its identity, unless it is known by more names."""
        return (self.identity,)

    @property
    def needs(self) -> tuple[str, ...]:
        """What it stands on, by name. If something that is not ours is in that one's way, this is not made either."""
        return ()

    @property
    def batched(self) -> bool:
        """Whether apply needs nothing that is still queued, so that many resources travel together."""
        return False

    @property
    def notes(self) -> bool:
        """Whether it changes a setting of the host whose value before must be known to remove it."""
        return False

    def note(self, system: System) -> None:  # noqa: B027 - most need nothing
        """Lay hold of the setting: write its value into the ledger."""

    @abstractmethod
    def observe(self, system: System) -> str | None:
        """Return None if all is as planned, else what differs: ``is missing``, ``mtu is 1400, planned 1500``.

        Raises NotOurs if something that does not carry our mark is in the way.
        """

    def prepare(self, system: System) -> None:  # noqa: B027 - most resources have nothing to begin
        """Begin what takes time. Called for all that differs before anything is applied."""

    @abstractmethod
    def apply(self, system: System) -> None:
        """Make it so, whatever part of it is there."""

    def ready(self, system: System) -> str | None:
        """Return None if it does its work, else what was seen. Asked again and again once everything was applied."""
        return None

    @abstractmethod
    def say(self, mark: Mark) -> Sequence[Step]:
        """Return the steps a person would take on a host where nothing of it is there."""


@dataclass(frozen=True, slots=True)
class Found:
    """Something that carries our mark, whether or not the plan still wants it.

    ``prepare`` begins what takes time; it is called for all that goes before anything is removed.
    """

    identity: str
    remove: Callable[[System], None]
    prepare: Callable[[System], None] | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """How all that carries our mark is found, for one kind of resource.

    ``finds`` are the classes whose traces it finds. ``discover`` is given the identities that the plan wants, so that
    it need not look into what goes as a whole. ``remove_all``, where the kernel offers it, removes everything found in
    one go. ``states`` tells what runs, by the name of a replica: ``running``, or what it does instead.
    """

    finds: tuple[type[Resource], ...]
    discover: Callable[[System, frozenset[str]], Iterator[Found]]
    remove_all: Callable[[System], None] | None = None
    states: Callable[[System], Mapping[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter of a phase: what it is called, why it is there, and its resources in order."""

    title: str
    why: str
    resources: tuple[Resource, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase on one host: its chapters in the order in which they are made."""

    mark: Mark
    sections: tuple[Section, ...]

    @property
    def resources(self) -> tuple[Resource, ...]:
        """All resources in order, each once."""
        every: dict[str, Resource] = {}
        for section in self.sections:
            for resource in section.resources:
                every.setdefault(resource.identity, resource)
        return tuple(every.values())
