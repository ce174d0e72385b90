"""The host as resources reach it: its network, its files, its supervisor, and the ledger of what it was before."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from provision.docker import Docker
from provision.kernel.network import Network
from provision.marks import Mark
from provision.once import Once
from provision.supervisor import ProgramState, Supervisor
from underlay import durable
from underlay.errors import NotReady, Problem
from underlay.process import Completed, run
from underlay.topology import Timeouts


class NotOurs(NotReady):
    """Something is in the way that does not carry our mark; it is left alone.

    ``remedy`` is the command that takes it away on the host, for a person who knows that nobody needs it.
    """

    def __init__(self, where: str, what: str, remedy: Sequence[str]) -> None:
        self.what = f"{what} is in the way: it does not carry our mark"
        self.remedy = f"if nobody needs it: ./lab exec {where} -- {shlex.join(remedy)}"
        super().__init__(Problem(where, self.what, self.remedy))


@dataclass(frozen=True, slots=True)
class Entry:
    """A setting of the host: what it was ``before`` anybody changed it, and the phases that hold it."""

    before: str
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """What settings of the host were before we changed them, so that removal can put them back.

    One ledger for all phases: a setting that several of them hold goes back when the last one lets go. A value is
    written down, durably, before it is changed; the first value written stays.
    """

    path: Path

    def read(self) -> dict[str, Entry]:
        """Return all entries by the setting's name."""
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return {}
        entries: dict[str, dict[str, str | list[str]]] = json.loads(text)
        return {name: Entry(str(item["before"]), tuple(item["holders"])) for name, item in entries.items()}

    def hold(self, name: str, before: str, phase: str) -> None:
        """Write down that a phase holds a setting, and its present value unless an earlier one is known."""
        entries = self.read()
        known = entries.get(name, Entry(before, ()))
        if phase not in known.holders:
            self._write(entries | {name: Entry(known.before, tuple(sorted((*known.holders, phase))))})

    def held(self, phase: str) -> dict[str, Entry]:
        """Return the entries that a phase holds."""
        return {name: entry for name, entry in self.read().items() if phase in entry.holders}

    def let_go(self, name: str, phase: str, put_back: Callable[[str], None]) -> None:
        """End a phase's hold; ``put_back`` is called with the value of before if nobody else holds the setting.

        It is forgotten only afterwards: a run that dies in between puts it back again.
        """
        entries = self.read()
        entry = entries.get(name)
        if entry is None or phase not in entry.holders:
            return
        others = tuple(holder for holder in entry.holders if holder != phase)
        if others:
            self._write(entries | {name: Entry(entry.before, others)})
            return
        put_back(entry.before)
        del entries[name]
        self._write(entries)

    def _write(self, entries: Mapping[str, Entry]) -> None:
        if not entries:
            durable.remove(self.path)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({name: asdict(entry) for name, entry in entries.items()}, indent=1)
        durable.replace(self.path, text)


@dataclass(frozen=True, slots=True)
class System:
    """One host, seen from inside, while one phase is worked on: that of ``mark``.

    ``programs``, ``rules`` (what iptables-save prints) and what ``docker`` says of containers are for looking at all
    resources, one after the other, with nothing changed in between; who changes something asks for itself, or forgets.
    """

    host: str
    mark: Mark
    timeouts: Timeouts
    network: Network
    supervisor: Supervisor
    ledger: Ledger = field(init=False)
    programs: Once[Mapping[str, ProgramState]] = field(init=False)
    rules: Once[str] = field(init=False)
    docker: Docker = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ledger", Ledger(self.mark.places.ledger))
        object.__setattr__(self, "programs", Once(self.supervisor.programs))
        object.__setattr__(self, "rules", Once(lambda: self.run("iptables-save").stdout))
        object.__setattr__(self, "docker", Docker(self.host, self.timeouts))

    def look_again(self) -> None:
        """Forget what was seen."""
        self.programs.forget()
        self.rules.forget()
        self.docker.forget()

    def run(self, *argv: str, stdin: str | None = None, check: bool = True, extra: float = 0.0) -> Completed:
        """Run a program on this host with the plan's time-out for commands, and so many ``extra`` seconds."""
        return run(argv, timeout=self.timeouts.command + extra, stdin=stdin, check=check, where=self.host)
