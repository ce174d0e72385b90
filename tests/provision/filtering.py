"""A reader of our own rules: what iptables would do with one packet, for the few matches and targets that we use."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network

from provision.marks import Mark
from provision.resources.rules import Table

BUILTIN = frozenset({"ACCEPT", "DROP", "REJECT", "RETURN", "MASQUERADE", "DNAT"})
#: Options in the order in which iptables-save prints them, before the matches that have a module.
_ORDER = ("-s", "-d", "-i", "-o", "-p")
#: Options of modules and of targets, with one argument each.
_MODULE = frozenset(
    (
        "--dport",
        "--ctstate",
        "--ctorigdstport",
        "--comment",
        "--dst-type",
        "--mode",
        "--every",
        "--packet",
        "--uid-owner",
    )
)
_TARGET = frozenset(("--reject-with", "--to-destination"))


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection, on its way through a host; links are "" where there is none.

    ``user`` is who sends it on the host itself; None if nobody there does.
    """

    source: IPv4Address
    target: IPv4Address
    incoming: str
    outgoing: str
    port: int
    protocol: str = "tcp"
    states: frozenset[str] = frozenset({"NEW"})
    original_port: int = 0
    to_host: bool = False
    user: int | None = None


@cache
def options(rule: str) -> Mapping[str, str]:
    """A rule as its options and their arguments; "-m" is left out, since options name their module."""
    words = shlex.split(rule)
    return {name: value for name, value in zip(words[::2], words[1::2], strict=True) if name != "-m"}


def matches(rule: str, packet: Packet) -> bool:
    """Whether a rule speaks of this packet."""
    return all(_matches(name, value, packet) for name, value in options(rule).items())


def _matches(name: str, value: str, packet: Packet) -> bool:
    match name:
        case "-s":
            return packet.source in IPv4Network(value)
        case "-d":
            return packet.target in IPv4Network(value)
        case "-i" | "-o":
            return value == (packet.incoming if name == "-i" else packet.outgoing)
        case "-p":
            return packet.protocol == value
        case "--dport":
            return packet.port == int(value)
        case "--ctstate":
            return bool(packet.states & set(value.split(",")))
        case "--ctorigdstport":
            return packet.original_port == int(value)
        case "--dst-type":
            return packet.to_host
        case "--uid-owner":
            first, last = map(int, value.split("-"))
            return packet.user is not None and first <= packet.user <= last
        case _:
            return True


def verdict(table: Table, mark: Mark, hook: str, packet: Packet) -> str:
    """Where a packet ends: the first target that decides, else the chain's policy."""
    chains = {chain.name: chain.rules for chain in table.chains}

    def walk(rules: tuple[str, ...]) -> str | None:
        for rule in rules:
            if not matches(rule, packet):
                continue
            words = options(rule)
            if "-g" in words:  # whoever returns from there returns from here
                return walk(chains[words["-g"]])
            target = words["-j"]
            if target == "RETURN":
                return None
            decided = target if target in BUILTIN else walk(chains[target])
            if decided:
                return decided
        return None

    jumps = tuple(jump.words(mark) for jump in table.jumps if jump.source == hook)
    return walk(jumps) or dict(table.policies).get(hook, "ACCEPT")


def rules(table: Table) -> Iterator[tuple[str, str]]:
    """Every rule with its chain's name."""
    for chain in table.chains:
        for rule in chain.rules:
            yield chain.name, rule


def assert_canonical(rule: str) -> None:
    """Assert that iptables-save would print the rule just so: its options, their order, networks, quotes."""
    words = shlex.split(rule)
    names = [word for word in words[::2] if word != "-m"]
    known = [name for name in names if name in _ORDER]
    ends = "-g" if "-g" in names else "-j"
    assert set(names) <= {*_ORDER, *_MODULE, *_TARGET, ends}, rule
    assert known == sorted(known, key=_ORDER.index), rule
    assert names[: len(known)] == known, rule
    assert ends in names, rule
    assert set(names[names.index(ends) + 1 :]) <= _TARGET, rule
    assert len(set(names)) == len(names), rule
    for name in ("-s", "-d"):
        if network := options(rule).get(name):
            assert str(IPv4Network(network)) == network, rule
    if "--dport" in names:
        assert re.search(r"-p (tcp|udp) -m \1 --dport", rule), rule
    if comment := options(rule).get("--comment"):
        assert f'"{comment}"' in rule, rule
        assert not re.fullmatch(r"[\w-]+", comment), "iptables-save puts one word in no quotes"
        assert len(comment) < 256
    assert "'" not in rule
    assert "  " not in rule
