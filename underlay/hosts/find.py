"""The one finder of a lab, for the command and for the acceptance suite, and how both spell a command for a person."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from underlay.errors import NotReady, Problem
from underlay.hosts.base import Lab

NAMESPACE, VAGRANT = "namespace", "vagrant"
#: Environment variables that say what the options do: the plan's file, the kind of hosts, the lab's name.
PLAN_VARIABLE, HOSTS_VARIABLE, LAB_VARIABLE = "UNDERLAY_PLAN", "UNDERLAY_HOSTS", "UNDERLAY_LAB"
#: A command of ours in a sentence, as far as its options would stand.
_COMMAND = re.compile(r"(?<![\w/.])\./lab (?=[a-z])")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of hosts: how its labs are found, why there is none of a name, and the command that brings one up."""

    find: Callable[[str], Lab | None]
    why_not: Callable[[str], Problem | None]
    up: str


def _namespace(name: str) -> Lab | None:
    from underlay.hosts.namespace.labs import find_lab

    return find_lab(name)


def _vagrant(name: str) -> Lab | None:
    from underlay.hosts.vagrant.labs import find_lab

    return find_lab(name)


def _why_not_vagrant(name: str) -> Problem | None:
    from underlay.hosts.vagrant.labs import why_not

    return why_not(name)


#: Every kind of hosts by the name that ``--hosts`` takes. Another kind is one more entry.
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        NAMESPACE: Kind(_namespace, lambda _: None, "./lab up"),
        VAGRANT: Kind(_vagrant, _why_not_vagrant, "./lab vagrant up"),
    }
)


def find(name: str, kind: str | None = None, *, all_on: bool = False, kinds: Mapping[str, Kind] = KINDS) -> Lab:
    """Return the lab of that name, on hosts of that kind or of whatever kind it is up on.

    NotReady, with what to do, when there is none; when hosts of more than one kind run it and none was asked for; and
    with ``all_on`` when one of its hosts is off.
    """
    where = f"lab {name}"
    asked = {key: item for key, item in kinds.items() if kind in (None, key)}
    found = {key: lab for key, item in asked.items() if (lab := item.find(name)) is not None}
    if not found:
        why = asked[kind].why_not(name) if kind in asked else None
        ups = ", or ".join(item.up for item in asked.values())
        raise NotReady(why or Problem(where, "it is not up", f"bring it up: {ups}"))
    if len(found) > 1:
        # One that was left behind when the machine stopped does not stand in the way of one that runs.
        found = {key: lab for key, lab in found.items() if any(host.running() for host in lab.hosts.values())} or found
    if len(found) > 1:
        hint = f"choose with --hosts: {', '.join(found)}"
        raise NotReady(Problem(where, "it is up on hosts of more than one kind", hint))
    ((chosen, lab),) = found.items()
    off = [host.name for host in lab.hosts.values() if not host.running()] if all_on else []
    if off:
        raise NotReady(Problem(where, f"{', '.join(off)} not running", f"bring it up: {kinds[chosen].up}"))
    return lab


def options(plan: Path | None, kind: str | None) -> tuple[str, ...]:
    """Return the words that name a plan and a kind of hosts before a verb; None is what needs no word."""
    words: tuple[str, ...] = () if plan is None else ("--plan", str(plan))
    return words if kind is None else (*words, "--hosts", kind)


def spelled(text: str, plan: Path | None, kind: str | None) -> str:
    """Return a text in which each command ``./lab VERB`` carries the options that it needs to mean the same lab.

    >>> spelled("bring it up: ./lab up", Path("/tmp/quay.yaml"), None)
    'bring it up: ./lab --plan /tmp/quay.yaml up'
    """
    words = shlex.join(options(plan, kind))
    return _COMMAND.sub(lambda match: f"{match[0]}{words} ", text) if words else text
