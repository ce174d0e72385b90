"""What is done with a phase, written once for all phases: converge, check, remove."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from provision.kernel.netlink import KernelRefused
from provision.resource import Found, Kind, Phase, Resource
from provision.resources import file, ip, link, namespace, postgres, program, rules, sysctl
from provision.resources.program import Program
from provision.system import System
from underlay.errors import NotReady, Problem
from underlay.wait import NotYet, until

#: The kinds in the order of removal: programs before what they stand on, the guard last.
KINDS: Sequence[Kind] = (
    Kind(program.discover),
    Kind(file.discover),
    Kind(postgres.discover),
    Kind(ip.discover_routes),
    Kind(ip.discover_addresses),
    Kind(link.discover, link.remove_all),
    Kind(namespace.discover),
    Kind(sysctl.discover),
    Kind(rules.discover),
)
#: Mending one thing may disturb another (a bridge made again has lost its ports), which the next pass mends.
_PASSES = 4


@dataclass(frozen=True, slots=True)
class Difference:
    """A resource that is not as planned, and in what."""

    identity: str
    what: str

    def __str__(self) -> str:
        return f"{self.identity}: {self.what}"


@dataclass(frozen=True, slots=True)
class _Surplus:
    """What of one kind carries our mark and is not wanted; ``everything`` if no more of that kind carries it."""

    kind: Kind
    found: tuple[Found, ...]
    everything: bool


#: Is told of each difference as it is mended.
Report = Callable[[Difference], None]


def check(phase: Phase, system: System, kinds: Sequence[Kind] = KINDS) -> tuple[Difference, ...]:
    """Return all differences between the phase and the host, in order, without touching anything."""
    system.look_again()
    differences = list(_not_planned(_surplus(phase, system, kinds)))
    differences += [Difference(resource.identity, what) for resource, what in _drift(phase.resources, system)]
    return tuple(differences)


def converge(
    phase: Phase, system: System, report: Report, *, wait: bool = True, kinds: Sequence[Kind] = KINDS
) -> tuple[Difference, ...]:
    """Make the host as planned: apply what differs, in order, batched. Return what differed.

    A second run returns nothing. With ``wait`` it returns when every program serves. Raises NotReady if something
    still differs after a few passes, or a program does not serve in time.
    """
    mended: list[Difference] = []

    def noted(difference: Difference) -> None:
        mended.append(difference)
        report(difference)

    for attempt in range(_PASSES):
        try:
            changes = converge_once(phase, system, noted, kinds)
        except KernelRefused:
            # What was seen may have gone since: the kernel clears deleted namespaces away in its own time. Look again.
            system.network.discard()
            if attempt == _PASSES - 1:
                raise
            continue
        if not changes:
            break
    else:
        left = check(phase, system, kinds)
        raise NotReady(*(Problem(system.host, f"{item} (after {_PASSES} attempts)") for item in left or mended))
    if wait:
        wait_until_ready(phase.resources, system)
    return tuple(mended)


def converge_once(
    phase: Phase, system: System, report: Report, kinds: Sequence[Kind] = KINDS
) -> tuple[Difference, ...]:
    """Look once and mend what differs, without looking again."""
    system.look_again()
    surplus = tuple(_surplus(phase, system, kinds))
    drift = tuple(_drift(phase.resources, system))
    mended = list(_not_planned(surplus))
    for difference in mended:
        report(difference)
    for resource, _ in drift:
        resource.prepare(system)
    _remove(surplus, system)
    for resource, what in drift:
        if not resource.batched:
            system.network.flush()
        difference = Difference(resource.identity, what)
        report(difference)
        mended.append(difference)
        resource.apply(system)
    system.network.flush()
    system.network.close()
    return tuple(mended)


def remove(phase: Phase, system: System, report: Report, kinds: Sequence[Kind] = KINDS) -> tuple[Difference, ...]:
    """Take away all that carries the phase's mark, and put back what the ledger holds. Return what was there."""
    nothing = Phase(phase.mark, ())
    system.look_again()
    surplus = tuple(_surplus(nothing, system, kinds))
    removed = tuple(Difference(found.identity, "is removed") for item in surplus for found in item.found)
    for difference in removed:
        report(difference)
    _remove(surplus, system)
    system.network.close()
    system.look_again()
    left = tuple(found for item in _surplus(nothing, system, kinds) for found in item.found)
    if left:
        raise NotReady(*(Problem(system.host, f"{found.identity} could not be removed") for found in left))
    return removed


def wait_until_ready(resources: Sequence[Resource], system: System) -> None:
    """Wait until every program that says how to tell serves; raise NotReady with the last thing seen."""
    waiting = {item.name: item for item in resources if isinstance(item, Program) and item.ready}

    def all_ready() -> bool | NotYet:
        states = system.supervisor.programs()
        seen: list[str] = []
        for name, item in tuple(waiting.items()):
            said = item.ready.ask(system.timeouts.connect) if item.ready else None
            if said is None:
                del waiting[name]
                continue
            state = states.get(name)
            seen.append(f"{name} ({state.state if state else 'not supervised'}): {said}")
        return NotYet("; ".join(seen)) if seen else True

    until(
        all_ready,
        deadline_s=system.timeouts.ready,
        what="an answer of every program",
        where=system.host,
        hint="see the program's log: ./lab logs HOST PROGRAM",
    )


def _drift(resources: Sequence[Resource], system: System) -> Iterator[tuple[Resource, str]]:
    for resource in resources:
        what = resource.observe(system)
        if what is not None:
            yield resource, what


def _surplus(phase: Phase, system: System, kinds: Sequence[Kind]) -> Iterator[_Surplus]:
    wanted = frozenset(resource.identity for resource in phase.resources)
    for kind in kinds:
        found = tuple(kind.discover(system, wanted))
        surplus = tuple(item for item in found if item.identity not in wanted)
        if surplus:
            yield _Surplus(kind, surplus, everything=len(surplus) == len(found))


def _not_planned(surplus: Iterable[_Surplus]) -> Iterator[Difference]:
    for item in surplus:
        for found in item.found:
            yield Difference(found.identity, "is there but not planned")


def _remove(surplus: Iterable[_Surplus], system: System) -> None:
    for item in surplus:
        if item.everything and item.kind.remove_all:
            item.kind.remove_all(system)
            continue
        for found in item.found:
            if found.prepare:
                found.prepare(system)
        for found in item.found:
            found.remove(system)
        system.network.flush()
