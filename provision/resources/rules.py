"""iptables rules in chains of our own, loaded as one transaction a table (iptables-restore(8)).

`iptables-restore --noflush` swaps the chains that its input declares and leaves all others alone, so a packet sees the
old rules or the new ones, never half of them. Loading a rule each with `iptables -A` is slower and is seen half done.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from provision.marks import Mark
from provision.resource import Feed, Found, Resource, Step
from provision.system import System

_LEDGER = "policy "


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of ours: its full name and its rules, each the words after ``-A CHAIN`` as iptables-save writes them."""

    name: str
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Jump:
    """A rule in one of the kernel's own chains that leads into a chain of ours; ``match`` may be empty."""

    source: str
    target: str
    match: str = ""

    def words(self, mark: Mark) -> str:
        """Return the rule after ``-A CHAIN`` as iptables-save writes it."""
        return " ".join(filter(None, (self.match, f'-m comment --comment "{mark.comment}"', f"-j {self.target}")))


@dataclass(frozen=True, slots=True)
class Table(Resource):
    """All our rules of one iptables table; ``policies`` maps chains of the kernel's to their planned policy."""

    table: str
    chains: tuple[Chain, ...]
    jumps: tuple[Jump, ...]
    policies: tuple[tuple[str, str], ...] = ()

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"iptables {self.table}"

    @property
    def batched(self) -> bool:
        """See Resource."""
        return False

    @property
    def notes(self) -> bool:
        """See Resource."""
        return bool(self.policies)

    def note(self, system: System) -> None:
        """See Resource."""
        seen = _saved(system, self.table)
        for name, _ in self.policies:
            system.ledger.note(f"{_LEDGER}{self.table} {name}", seen.policies.get(name, "ACCEPT"))

    def observe(self, system: System) -> str | None:
        """See Resource."""
        seen = _read(system.rules.answer(), self.table)
        for chain in self.chains:
            if (difference := _compare(chain, seen.rules.get(chain.name))) is not None:
                return difference
        for name in seen.rules:
            if name.startswith(system.mark.chain) and name not in {chain.name for chain in self.chains}:
                return f"has a chain {name} that the plan does not have"
        for source in sorted({jump.source for jump in self.jumps} | set(seen.policies)):
            found = _our_jumps(seen, source, system.mark)
            planned = [jump.words(system.mark) for jump in self.jumps if jump.source == source]
            if found != planned:
                return f"{source} leads to ours by {found or 'nothing'}, planned {planned or 'nothing'}"
        for name, policy in self.policies:
            if seen.policies.get(name, "ACCEPT") != policy:
                return f"policy of {name} is {seen.policies.get(name)}, planned {policy}"
        return None

    def apply(self, system: System) -> None:
        """See Resource."""
        self.note(system)
        seen = _saved(system, self.table)
        _restore(system, self._text(system.mark, seen))

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (Feed(("iptables-restore", "--noflush"), self._text(mark, _Saved({}, {}))),)

    def _text(self, mark: Mark, seen: _Saved) -> str:
        lines = [f"*{self.table}", *(f":{name} {policy} [0:0]" for name, policy in self.policies)]
        lines += [f":{chain.name} - [0:0]" for chain in self.chains]
        for source in sorted(seen.policies):
            lines += [f"-D {source} {rule}" for rule in _our_jumps(seen, source, mark)]
        lines += [f"-A {chain.name} {rule}" for chain in self.chains for rule in chain.rules]
        # Inserted in reverse at the head: our decision comes before that of whoever appends.
        lines += [f"-I {jump.source} {jump.words(mark)}" for jump in reversed(self.jumps)]
        wanted = {chain.name for chain in self.chains}
        gone = [name for name in seen.rules if name.startswith(mark.chain) and name not in wanted]
        lines += [f"-F {name}" for name in gone] + [f"-X {name}" for name in gone]
        return "\n".join([*lines, "COMMIT", ""])


@dataclass(frozen=True, slots=True)
class _Saved:
    """What iptables-save says of one table: rules by chain, and the policies of the kernel's own chains."""

    rules: Mapping[str, tuple[str, ...]]
    policies: Mapping[str, str]


def discover(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find the tables that hold chains of ours, jumps of ours, or a policy that we changed."""
    for table in ("filter", "nat"):
        seen = _read(system.rules.answer(), table)
        ours = any(name.startswith(system.mark.chain) for name in seen.rules)
        jumps = any(_our_jumps(seen, source, system.mark) for source in seen.policies)
        noted = any(name.startswith(f"{_LEDGER}{table} ") for name in system.ledger.read())
        if ours or jumps or noted:
            yield Found(f"iptables {table}", _remover(table))


def _remover(table: str) -> Callable[[System], None]:
    def remove(system: System) -> None:
        seen = _saved(system, table)
        entries = {name: value for name, value in system.ledger.read().items() if name.startswith(f"{_LEDGER}{table} ")}
        before = tuple((name.split()[-1], value) for name, value in entries.items())
        empty = Table(table, (), (), before)
        _restore(system, empty._text(system.mark, seen))
        for name in entries:
            system.ledger.strike(name)

    return remove


def _saved(system: System, table: str) -> _Saved:
    """Read a table as it is now. One that was never used is empty."""
    return _read(system.run("iptables-save", "-t", table).stdout, table)


def _read(text: str, table: str) -> _Saved:
    """Read one table of what iptables-save printed."""
    rules: dict[str, list[str]] = {}
    policies: dict[str, str] = {}
    here = False
    for line in text.splitlines():
        if line.startswith("*"):
            here = line == f"*{table}"
        elif here and line.startswith(":"):
            name, policy, *_ = line[1:].split()
            rules[name] = []
            if policy != "-":
                policies[name] = policy
        elif here and line.startswith("-A "):
            _, name, rule = line.split(" ", 2)
            rules[name].append(rule)
    return _Saved({name: tuple(found) for name, found in rules.items()}, policies)


def _restore(system: System, text: str) -> None:
    wait = str(int(system.timeouts.command))
    system.run("iptables-restore", "--noflush", "--wait", wait, stdin=text)


def _our_jumps(seen: _Saved, source: str, mark: Mark) -> list[str]:
    comment = shlex.quote(mark.comment).replace("'", '"')
    return [rule for rule in seen.rules.get(source, ()) if f"--comment {comment}" in rule]


def _compare(chain: Chain, seen: tuple[str, ...] | None) -> str | None:
    if seen is None:
        return f"chain {chain.name} is missing"
    for rule in chain.rules:
        if rule not in seen:
            return f"{chain.name} lacks the rule: {rule}"
    for rule in seen:
        if rule not in chain.rules:
            return f"{chain.name} has a rule that the plan does not have: {rule}"
    return None if seen == chain.rules else f"the rules of {chain.name} are in another order, or twice"
