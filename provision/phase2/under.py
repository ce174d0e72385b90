"""What Docker has made for one container, as the commands that make the same by hand. Pure; see seen.py.

The steps come in the order in which Docker takes them (moby, daemon/libnetwork): the daemon's own, each network's, the
container's. A rule is added where it stands, so that the whole comes to the chains that are there.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface

from provision.marks import COMMENT
from provision.resources.docker.daemon import PEOPLE, PEOPLES_END
from provision.resources.rules import OF_DOCKER, Saved, target_of

_WIDTH = 100
_ADDRESS = re.compile(r"\d+(\.\d+){3}")
#: Tables in the order in which a packet that passes through meets them last; ours alone is left out.
_TABLES = ("nat", "filter")
#: Beside a command of Docker's: what somebody else makes of the same.
_BESIDE = "#   "


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge of Docker's: of which network it is, and ``sysctls`` that were written for it."""

    network: str
    name: str
    mac: str
    mtu: int
    address: IPv4Interface | None
    sysctls: Mapping[str, str]
    up: bool = True


@dataclass(frozen=True, slots=True)
class Cable:
    """A veth pair: its end on the host, the bridge of which that is a port, and its end inside."""

    outer: str
    bridge: str
    inner: str
    mac: str
    mtu: int
    address: IPv4Interface


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a container on its host.

    ``routes`` are words for `ip route add`. ``host`` and ``inside`` have the tables of iptables by name. ``others`` are
    the bridges of all networks. ``proxies`` are the programs that answer for its published ports; ``resolvers`` the
    places, inside, at which the daemon listens for questions about names.
    """

    engine: str
    name: str
    forwarding: Mapping[str, str]
    default: Bridge | None
    bridges: tuple[Bridge, ...]
    others: frozenset[str]
    cables: tuple[Cable, ...]
    inner_sysctls: Mapping[str, str]
    routes: tuple[tuple[str, ...], ...]
    host: Mapping[str, Saved]
    inside: Mapping[str, Saved]
    proxies: tuple[tuple[str, ...], ...]
    resolvers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Beside:
    """How phase 1 does the same for the same replica: lines for each of the steps."""

    router: Sequence[str] = ()
    bridges: Sequence[str] = ()
    namespace: Sequence[str] = ()
    published: Sequence[str] = ()
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Step:
    """What Docker does at once, and why; ``beside`` are phase 1's commands."""

    title: str
    why: str
    commands: Sequence[str]
    beside: Sequence[str]


class InPlace:
    """Rules said one after the other, each at the place that makes the chains come out as they are."""

    def __init__(self, tables: Mapping[str, Saved], enter: Sequence[str] = ()) -> None:
        self._tables, self._enter = tables, tuple(enter)
        self._said: dict[tuple[str, str], set[int]] = {}

    def say(self, wanted: Callable[[str, str], bool]) -> Iterator[str]:
        """Yield the commands for those rules that are wanted, by chain and words, and have not been said."""
        for table in _TABLES:
            for chain, rules in self._tables[table].rules.items() if table in self._tables else ():
                said = self._said.setdefault((table, chain), set())
                for number, rule in enumerate(rules):
                    if number in said or not wanted(chain, rule):
                        continue
                    place = 1 + sum(1 for other in said if other < number)
                    how = ("-A", chain) if place > len(said) else ("-I", chain, *([str(place)] if place > 1 else []))
                    said.add(number)
                    yield f"{shlex.join((*self._enter, 'iptables', '-t', table, *how))} {rule}"


def script(seen: Seen, beside: Beside, host: str) -> str:
    """Return all of it as a shell script; in a network namespace of its own it makes what Docker has made."""
    lines = [
        "#!/bin/sh",
        f"# What Docker {seen.engine} has made for {seen.name}, as seen on {host} now: the commands that make the",
        "# same by hand, in Docker's order. Below each step, after #, phase 1's for the same replica.",
        "# Left out: the guard, which is ours (DOCKER-USER, INPUT, the security table), other containers, links",
        "# of other kinds than veth, and IPv6. To try it in a network of its own, on the host, with this in a FILE:",
        "#   unshare --net --mount sh -c 'mount -t tmpfs none /run/netns && sh FILE && ip address && iptables-save'",
        "set -eu",
    ]
    for number, step in enumerate(_steps(seen, beside), start=1):
        lines += ["", "", f"# {number}. {step.title}", "#", *(f"# {line}" for line in textwrap.wrap(step.why, _WIDTH))]
        lines += ["", *step.commands]
        if step.beside:
            lines += ["", "# Phase 1:", *(f"{_BESIDE}{line}" for line in step.beside)]
    return "\n".join([*lines, ""])


def _steps(seen: Seen, beside: Beside) -> Iterator[_Step]:
    rules, ours = InPlace(seen.host), {bridge.name for bridge in seen.bridges}
    own = {str(cable.address.ip) for cable in seen.cables}
    other = seen.others - ours

    def say(wanted: Callable[[frozenset[str]], bool]) -> list[str]:
        return list(rules.say(lambda chain, rule: _of_docker(seen, chain, rule) and wanted(_named(rule))))

    yield _Step(
        "The daemon starts",
        "The host becomes a router, and forwards nothing that no rule lets through. Docker's chains hang on the "
        "kernel's: DOCKER-USER, for people, is asked first; then what keeps networks apart; then what each bridge lets "
        "in.",
        [*_daemon(seen), *say(lambda named: not named & (ours | other) and not _guests(named))],
        beside.router,
    )
    yield _Step(
        "The networks that it is in" if len(seen.bridges) > 1 else "The network that it is in",
        "A bridge for each. What leaves by another link gets the host's address; between two bridges nothing passes, "
        "and without icc nothing between two ports of one.",
        [line for bridge in seen.bridges for line in _bridge(bridge)]
        + say(lambda named: bool(named & ours) and not _guests(named)),
        beside.bridges,
    )
    yield _Step(
        "Its namespace, with a cable to each bridge",
        "Docker's has no name: `ip netns attach` gives it one. Without privileges a program may bind ports below 1024, "
        "and ping.",
        list(_namespace(seen)),
        beside.namespace,
    )
    if published := [*say(lambda named: bool(named & own)), *_proxies(seen)]:
        yield _Step(
            "Its published ports",
            "Who comes from elsewhere has the destination translated, and is let in. Who calls from 127.0.0.1, or from "
            "a network of Docker's, is answered by a program on the host, which calls on.",
            published,
            beside.published,
        )
    yield _Step(
        "Names",
        "The daemon itself answers, at 127.0.0.11 in the namespace; the rules lead port 53 to where it listens"
        + (f": {', '.join(seen.resolvers)}." if seen.resolvers else "."),
        [f"{_enter(seen)} iptables -t {table} -N {chain}" for table, chain in _chains(seen.inside)]
        + list(InPlace(seen.inside, shlex.split(_enter(seen))).say(lambda _chain, _rule: True)),
        beside.names,
    )


def _of_docker(seen: Seen, chain: str, rule: str) -> bool:
    """Whether a rule is Docker's own: in one of its chains, or in one of the kernel's about its chains and networks."""
    if chain in OF_DOCKER:
        return chain != PEOPLE or rule == PEOPLES_END
    if not any(chain in saved.policies for saved in seen.host.values()) or COMMENT in rule:
        return False
    bridges = {*seen.others, *({seen.default.name} if seen.default else ())}
    return target_of(rule) in OF_DOCKER or bool(_named(rule) & bridges) or bool(_guests(_named(rule)))


def _named(rule: str) -> frozenset[str]:
    """Return the words of a rule, addresses without ports and without the length of an address that stands alone."""
    return frozenset(re.sub(r"/32$|:\d+$", "", word) for word in shlex.split(rule))


def _guests(named: frozenset[str]) -> frozenset[str]:
    """Return the addresses among the words of a rule: those of containers."""
    return frozenset(word for word in named if _ADDRESS.fullmatch(word))


def _daemon(seen: Seen) -> Iterator[str]:
    yield from (f"sysctl -qw {name}={value}" for name, value in seen.forwarding.items())
    if policy := seen.host["filter"].policies.get("FORWARD"):
        yield f"iptables -t filter -P FORWARD {policy}"
    for table, chain in _chains(seen.host):
        if chain in OF_DOCKER:
            yield f"iptables -t {table} -N {chain}"
    if seen.default:
        yield from _bridge(seen.default)


def _chains(tables: Mapping[str, Saved]) -> Iterator[tuple[str, str]]:
    """Yield the chains that are not the kernel's own."""
    for table in _TABLES:
        if table in tables:
            saved = tables[table]
            yield from ((table, chain) for chain in saved.rules if chain not in saved.policies)


def _bridge(bridge: Bridge) -> Iterator[str]:
    yield f"ip link add {bridge.name} address {bridge.mac} mtu {bridge.mtu} type bridge"
    if bridge.address:
        yield f"ip address add {bridge.address} broadcast + dev {bridge.name}"
    yield from (f"sysctl -qw {name}={value}" for name, value in bridge.sysctls.items())
    yield f"ip link set {bridge.name} {'up' if bridge.up else 'down'}"


def _namespace(seen: Seen) -> Iterator[str]:
    enter = _enter(seen)
    yield f"ip netns add {seen.name}"
    yield f"{enter} ip link set lo up"
    yield from (f"{enter} sysctl -qw '{name}={value}'" for name, value in seen.inner_sysctls.items())
    for cable in seen.cables:
        yield f"ip link add {cable.outer} mtu {cable.mtu} type veth peer name {cable.inner} netns {seen.name}"
        yield f"ip link set {cable.outer} master {cable.bridge} up"
        yield f"{enter} ip link set {cable.inner} address {cable.mac} mtu {cable.mtu}"
        yield f"{enter} ip address add {cable.address} broadcast + dev {cable.inner}"
        yield f"{enter} ip link set {cable.inner} up"
    yield from (f"{enter} ip route add {shlex.join(words)}" for words in seen.routes)


def _proxies(seen: Seen) -> Iterator[str]:
    yield from (f"# {shlex.join(argv)} &" for argv in seen.proxies)


def _enter(seen: Seen) -> str:
    return f"ip netns exec {seen.name}"
