"""The phases that there are: for each its mark, what it is made of, and how all of it is found again.

A phase is a package (or module) of ``provision`` that is called like it and has a :class:`Definition` named
``DEFINITION``. Only the phase that is asked for is imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from provision.kernel.network import Network
from provision.marks import Mark
from provision.resource import Kind, Phase
from underlay.topology import Plan

Facts = TypeVar("Facts")


@dataclass(frozen=True, slots=True)
class Definition(Generic[Facts]):
    """One phase.

    ``ask`` asks the host, by name, for the facts without which ``build`` cannot say what should be there; ``build`` is
    pure. ``kinds`` are in the order of removal. ``claims`` names what only one phase may have on a host.
    """

    mark: Mark
    ask: Callable[[Plan, str, Network], Facts]
    build: Callable[[Plan, str, Facts], Phase]
    kinds: Sequence[Kind]
    claims: Callable[[Plan, str], frozenset[str]]

    def phase(self, plan: Plan, host: str, network: Network) -> Phase:
        """Ask this host, and return what should be on it. Raises NotReady, naming all that is missing."""
        return self.build(plan, host, self.ask(plan, host, network))


class Registered(Protocol):
    """A definition, whatever its facts are; see there."""

    @property
    def mark(self) -> Mark:
        """The marks of what it makes."""
        ...

    @property
    def kinds(self) -> Sequence[Kind]:
        """Its kinds of resources, in the order of removal."""
        ...

    @property
    def claims(self) -> Callable[[Plan, str], frozenset[str]]:
        """What only one phase may have on a host."""
        ...

    def phase(self, plan: Plan, host: str, network: Network) -> Phase:
        """Return what should be on this host."""
        ...


def definition(name: str) -> Registered:
    """Return the phase of that name; ModuleNotFoundError if there is none."""
    found: Registered = importlib.import_module(f"provision.{name}").DEFINITION
    return found
