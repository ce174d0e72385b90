"""iptables rules in chains of our own, loaded as one transaction a table (iptables-restore(8)).

`iptables-restore --noflush` swaps the chains that its input declares and leaves all others alone, so a packet sees the
old rules or the new ones, never half of them. Loading a rule each with `iptables -A` is slower and is seen half done.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from itertools import pairwise

from provision.marks import COMMENT, Mark
from provision.resource import Feed, Found, Resource, Step
from provision.system import System

_LEDGER = "policy "
#: How often a transaction is tried while somebody else changes the same table.
_TRIES = 5
#: The chains that Docker's daemon makes (moby, daemon/libnetwork), of this version and of later ones.
OF_DOCKER = frozenset(
    (
        "DOCKER",
        "DOCKER-USER",
        "DOCKER-FORWARD",
        "DOCKER-BRIDGE",
        "DOCKER-CT",
        "DOCKER-INTERNAL",
        "DOCKER-INGRESS",
        "DOCKER-ISOLATION-STAGE-1",
        "DOCKER-ISOLATION-STAGE-2",
    )
)
#: The kernel's own chains, which are always there.
_BUILT_IN = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of ours: its full name and its rules, each the words after ``-A CHAIN`` as iptables-save writes them."""

    name: str
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Jump:
    """A rule in a chain that is not ours, the kernel's or Docker's, that leads into one of ours.

    ``match`` may be empty. It stands before whatever others put into that chain, or they would decide first.
    """

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
        seen = read(system.rules.answer(), self.table)
        for name, _ in self.policies:
            system.ledger.hold(self._entry(name), seen.policies.get(name, "ACCEPT"), system.mark.phase)

    def observe(self, system: System) -> str | None:
        """See Resource."""
        seen = read(system.rules.answer(), self.table)
        for chain in self.chains:
            if (difference := _compare(chain, seen.rules.get(chain.name))) is not None:
                return difference
        for name in seen.rules:
            if name.startswith(system.mark.chain) and name not in {chain.name for chain in self.chains}:
                return f"has a chain {name} that the plan does not have"
        for source in sorted({jump.source for jump in self.jumps} | set(_of_others(seen, system.mark))):
            found = _our_jumps(seen, source, system.mark)
            planned = [jump.words(system.mark) for jump in self.jumps if jump.source == source]
            if found != planned:
                return f"{source} {_jumps_differ(found, planned)}"
            if found and (first := _before_ours(seen.rules[source], found, self._scope)):
                return f"{source} asks a rule of others before it leads to ours: {first}"
        return self._policy_differs(seen, system)

    def apply(self, system: System) -> None:
        """See Resource."""
        self.note(system)
        self.load(system)

    def load(self, system: System) -> None:
        """Make the table so, whatever it holds now."""
        restore(system, self.table, lambda seen: self.text(system.mark, seen))

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (Feed(("iptables-restore", "--noflush"), self.text(mark, Saved({}, {}))),)

    def text(self, mark: Mark, seen: Saved) -> str:
        """Return what iptables-restore(8) makes it with, on a host whose rules were ``seen``."""
        lines = [f"*{self.table}", *(f":{name} {policy} [0:0]" for name, policy in self.policies)]
        lines += [f":{chain.name} - [0:0]" for chain in self.chains]
        # A chain of others that is not there yet. One that is there would be emptied by this line.
        lines += [
            f":{source} - [0:0]"
            for source in dict.fromkeys(jump.source for jump in self.jumps)
            if source not in _BUILT_IN | seen.rules.keys()
        ]
        for source in _of_others(seen, mark):
            lines += [f"-D {source} {rule}" for rule in _our_jumps(seen, source, mark)]
        lines += [f"-A {chain.name} {rule}" for chain in self.chains for rule in chain.rules]
        # Inserted in reverse at the head: our decision comes before that of whoever appends.
        lines += [f"-I {jump.source} {jump.words(mark)}" for jump in reversed(self.jumps)]
        wanted = {chain.name for chain in self.chains}
        gone = [name for name in seen.rules if name.startswith(mark.chain) and name not in wanted]
        lines += [f"-F {name}" for name in gone] + [f"-X {name}" for name in gone]
        return "\n".join([*lines, "COMMIT", ""])

    @property
    def _scope(self) -> _Scope:
        """What our rules are about: the links whose packets are led to them, and the addresses that they name."""
        return _Scope(
            frozenset(link for jump in self.jumps for link in _links(jump.match)),
            frozenset(found for chain in self.chains for rule in chain.rules for found in _networks(rule)),
        )

    def _policy_differs(self, seen: Saved, system: System) -> str | None:
        held = system.ledger.held(system.mark.phase) if self.policies else {}
        for name, policy in self.policies:
            now = seen.policies.get(name, "ACCEPT")
            if now != policy:
                return f"policy of {name} is {now}, planned {policy}"
            if self._entry(name) not in held:
                return f"policy of {name} is {now} as planned, but what it was before {system.mark.phase} is not noted"
        return None

    def _entry(self, chain: str) -> str:
        return f"{_LEDGER}{self.table} {chain}"


@dataclass(frozen=True, slots=True)
class Saved:
    """What iptables-save says of one table: rules by chain, and the policies of the kernel's own chains."""

    rules: Mapping[str, tuple[str, ...]]
    policies: Mapping[str, str]


def discover(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find the tables that hold chains of ours, jumps of ours in whatever chain, or a policy that we hold."""
    text = system.rules.answer()
    held = [name.split()[1] for name in system.ledger.held(system.mark.phase) if name.startswith(_LEDGER)]
    for table in dict.fromkeys([*(line[1:] for line in text.splitlines() if line.startswith("*")), *held]):
        seen = read(text, table)
        ours = any(name.startswith(system.mark.chain) for name in seen.rules)
        jumps = any(_our_jumps(seen, source, system.mark) for source in _of_others(seen, system.mark))
        if ours or jumps or table in held:
            yield Found(f"iptables {table}", _remover(table))


def _remover(table: str) -> Callable[[System], None]:
    def remove(system: System) -> None:
        phase = system.mark.phase
        held = {
            name: entry for name, entry in system.ledger.held(phase).items() if name.startswith(f"{_LEDGER}{table} ")
        }
        # With the rules in one transaction, but a policy that another phase holds stays.
        back = tuple((name.split()[-1], entry.before) for name, entry in held.items() if entry.holders == (phase,))
        Table(table, (), (), back).load(system)
        for name in held:
            system.ledger.let_go(name, phase, lambda _: None)

    return remove


def read(text: str, table: str) -> Saved:
    """Read one table of what iptables-save(8) printed."""
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
            _, name, *rule = line.split(" ", 2)  # a rule without words only counts
            rules[name].append(rule[0] if rule else "")
    return Saved({name: tuple(found) for name, found in rules.items()}, policies)


def restore(system: System, table: str, text: Callable[[Saved], str]) -> None:
    """Have iptables-restore(8) do what ``text`` says, in one transaction, from what the table holds now.

    What was seen when all was looked at may have gone since: Docker takes its rules along with a network. It may write
    between our look and the transaction too, which then fails as a whole; so look again, as long as there is news.
    """
    wait = str(int(system.timeouts.command))
    before = None
    for attempt in range(_TRIES):
        system.rules.forget()
        seen = read(system.rules.answer(), table)
        last = seen == before or attempt == _TRIES - 1
        if system.run("iptables-restore", "--noflush", "--wait", wait, stdin=text(seen), check=last).ok:
            break
        before = seen
    system.rules.forget()


def _of_others(seen: Saved, mark: Mark) -> list[str]:
    """Return the chains that are not ours, the kernel's and those of Docker or of another phase."""
    return sorted(name for name in seen.rules if not name.startswith(mark.chain))


def _our_jumps(seen: Saved, source: str, mark: Mark) -> list[str]:
    comment = shlex.quote(mark.comment).replace("'", '"')
    return [rule for rule in seen.rules.get(source, ()) if f"--comment {comment}" in rule]


def _jumps_differ(found: Sequence[str], planned: Sequence[str]) -> str:
    lacks, more = ([rule for rule in one if rule not in other] for one, other in ((planned, found), (found, planned)))
    if lacks:
        return f"lacks what leads to ours: {lacks[0]}"
    if more:
        return f"leads to ours by what the plan does not have: {more[0]}"
    return "leads to ours in another order, or twice"


@dataclass(frozen=True, slots=True)
class _Scope:
    """The links and addresses that rules are about."""

    links: frozenset[str]
    networks: frozenset[IPv4Network]


def _before_ours(rules: Sequence[str], ours: Sequence[str], scope: _Scope) -> str | None:
    """Return the first rule that stands before one of ours and may decide about its packets; None if there is none.

    Those of phases do not. Nor do those in which Docker accepts what comes from its own links or goes there, and leads
    to its own chains, which it puts first whenever it starts: what they accept too much, the security table drops
    (provision/guard.py).
    """
    last = max(number for number, rule in enumerate(rules) if rule in ours)
    return next((rule for rule in rules[:last] if rule and _may_decide(rule, scope)), None)


def _may_decide(rule: str, scope: _Scope) -> bool:
    if f'--comment "{COMMENT}' in rule:
        return False
    target, links = target_of(rule), _links(rule)
    if target in OF_DOCKER:
        return False
    if target == "MASQUERADE" and (sources := _networks(rule, "-s")):  # of a network's own packets
        return any(source.overlaps(network) for source in sources for network in scope.networks)
    if not links or not scope.links.isdisjoint(links):
        return True
    # What comes from a link of others may go to ours, and the reverse; what is said to come from one and go to one not.
    return target != "ACCEPT" and len(links) == 1


def target_of(rule: str) -> str:
    """Return what a rule leads to, whether it comes back or not; "" if it only counts."""
    return next((word for option, word in pairwise(shlex.split(rule)) if option in {"-j", "-g"}), "")


def _networks(rule: str, *options: str) -> frozenset[IPv4Network]:
    """Return the networks that a rule names, by these options (all: by source and by destination)."""
    wanted = options or ("-s", "-d")
    return frozenset(IPv4Network(word) for option, word in pairwise(shlex.split(rule)) if option in wanted)


def _links(rule: str) -> tuple[str, ...]:
    """Return the links that a rule's packets must come from and go to, as far as it says so."""
    words = shlex.split(rule)
    return tuple(
        link
        for number, (option, link) in enumerate(pairwise(words))
        if option in {"-i", "-o"} and words[number - 1 : number] != ["!"]
    )


def _compare(chain: Chain, seen: tuple[str, ...] | None) -> str | None:
    if seen is None:
        return f"chain {chain.name} is missing"
    for rule in chain.rules:
        if rule not in seen:
            return f"{chain.name} lacks the rule: {rule}"
    for rule in seen:
        if rule not in chain.rules:
            return f"{chain.name} has a rule that the plan does not have: {rule or 'one without words'}"
    return None if seen == chain.rules else f"the rules of {chain.name} are in another order, or twice"
