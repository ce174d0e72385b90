"""The host as resources reach it: its network, its files, its supervisor, and the ledger of what it was before."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from provision.kernel.network import Network
from provision.marks import Mark
from provision.supervisor import ProgramState, Supervisor
from underlay import durable
from underlay.errors import NotReady, Problem
from underlay.process import Completed, run
from underlay.topology import Timeouts


class NotOurs(NotReady):
    """Something is in the way that does not carry our mark; it is left alone."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(
            Problem(where, f"{what} is there already and does not carry our mark", "remove or rename it, then retry")
        )


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a setting of the host was before we changed it, so that removal can put it back.

    A value is written down, durably, before it is changed; the first value written stays.
    """

    path: Path

    def read(self) -> dict[str, str]:
        """Return all entries: name of the setting, value before."""
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return {}
        entries: dict[str, str] = json.loads(text)
        return entries

    def note(self, name: str, before: str) -> None:
        """Write a value down unless one is there already."""
        entries = self.read()
        if name not in entries:
            self._write(entries | {name: before})

    def strike(self, name: str) -> None:
        """Forget an entry."""
        entries = self.read()
        if entries.pop(name, None) is not None:
            self._write(entries)

    def _write(self, entries: dict[str, str]) -> None:
        if not entries:
            durable.remove(self.path)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(self.path, json.dumps(entries, indent=1, sort_keys=True))


Answer = TypeVar("Answer")


class Once(Generic[Answer]):
    """A question that is asked once, until its answer is forgotten: many resources want the same one."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._answers: list[Answer] = []

    def answer(self) -> Answer:
        """Return the answer, asking if need be."""
        if not self._answers:
            self._answers.append(self._ask())
        return self._answers[0]

    def forget(self) -> None:
        """Ask again next time."""
        self._answers.clear()


@dataclass(frozen=True, slots=True)
class System:
    """One host, seen from inside, while one phase is worked on.

    ``programs`` and ``rules`` (what iptables-save prints) are for looking at all resources, one after the other, with
    nothing changed in between; who changes something asks for itself.
    """

    host: str
    mark: Mark
    timeouts: Timeouts
    network: Network
    supervisor: Supervisor
    state: Path = Path("/var/lib/underlay")
    settings: Path = Path("/etc/underlay")
    ledger: Ledger = field(init=False)
    programs: Once[Mapping[str, ProgramState]] = field(init=False)
    rules: Once[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ledger", Ledger(self.state / f"{self.mark.phase}.ledger"))
        object.__setattr__(self, "programs", Once(self.supervisor.programs))
        object.__setattr__(self, "rules", Once(lambda: self.run("iptables-save").stdout))

    def look_again(self) -> None:
        """Forget what was seen."""
        self.programs.forget()
        self.rules.forget()

    def run(self, *argv: str, stdin: str | None = None, check: bool = True) -> Completed:
        """Run a program on this host with the plan's time-out for commands."""
        return run(argv, timeout=self.timeouts.command, stdin=stdin, check=check, where=self.host)
