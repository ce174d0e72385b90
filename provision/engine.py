"""What is done with a phase, written once for all phases: converge, check, remove."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from provision.kernel.netlink import KernelRefused
from provision.resource import Found, Kind, Phase, Resource
from provision.system import NotOurs, System
from underlay.errors import NotReady, Problem
from underlay.wait import NotYet, until

#: Mending one thing may disturb another (a bridge made again has lost its ports), which the next pass mends.
_PASSES = 4
#: Seconds between two looks at programs that take long to start: each takes processor time from them.
_SLOWEST_S = 0.5


@dataclass(frozen=True, slots=True)
class Difference:
    """A resource that is not as planned, and in what; ``remedy`` is what a person may do where we may do nothing."""

    identity: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.identity}: {self.what}"


@dataclass(frozen=True, slots=True)
class Drift:
    """A resource that is not as planned.

    It is ``blocked`` if something that is not ours is in its way, or in the way of what it needs: on somebody else's
    link no address of ours is put.
    """

    resource: Resource
    difference: Difference
    blocked: bool


@dataclass(frozen=True, slots=True)
class _Surplus:
    """What of one kind carries our mark and is not wanted; ``everything`` if no more of that kind carries it."""

    kind: Kind
    found: tuple[Found, ...]
    everything: bool


#: Is told of each difference as it is mended.
Report = Callable[[Difference], None]


def check(phase: Phase, system: System, kinds: Sequence[Kind]) -> tuple[Difference, ...]:
    """Return all differences between the phase and the host, in order, without touching anything."""
    system.look_again()
    drift = _drift(phase.resources, system)
    return (*_not_planned(_surplus(phase, system, kinds)), *(item.difference for item in drift))


def converge(
    phase: Phase, system: System, report: Report, kinds: Sequence[Kind], *, wait: bool = True
) -> tuple[Difference, ...]:
    """Make the host as planned: apply what differs, in order, batched. Return what was mended.

    A second run returns nothing. With ``wait`` it returns when every resource says that it is ready. Raises NotReady if
    something still differs after a few passes, does not get ready in time, or if something that is not ours is in the
    way; all else is then as planned, and is not waited for: it may need what cannot be made.
    """
    mended: list[Difference] = []

    def noted(difference: Difference) -> None:
        mended.append(difference)
        report(difference)

    for attempt in range(_PASSES):
        try:
            changes, blocked = converge_once(phase, system, noted, kinds)
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
    if blocked:
        raise NotReady(*(Problem(system.host, str(item.difference), item.difference.remedy) for item in blocked))
    if wait:
        wait_until_ready(phase.resources, system)
    return tuple(mended)


def converge_once(
    phase: Phase, system: System, report: Report, kinds: Sequence[Kind]
) -> tuple[tuple[Difference, ...], tuple[Drift, ...]]:
    """Look once and mend what differs, without looking again; return what was mended, and what is blocked."""
    system.look_again()
    surplus = tuple(_surplus(phase, system, kinds))
    drift = tuple(_drift(phase.resources, system))
    mended = list(_not_planned(surplus))
    for difference in mended:
        report(difference)
    for item in drift:
        if not item.blocked:
            item.resource.prepare(system)
    _remove(surplus, system)
    for item in drift:
        if item.blocked:
            continue
        if not item.resource.batched:
            system.network.flush()
        report(item.difference)
        mended.append(item.difference)
        item.resource.apply(system)
    system.network.flush()
    system.network.close()
    return tuple(mended), tuple(item for item in drift if item.blocked)


def remove(phase: Phase, system: System, report: Report, kinds: Sequence[Kind]) -> tuple[Difference, ...]:
    """Take away all that carries the phase's mark, and let go of what the ledger holds. Return what was there."""
    nothing = Phase(phase.mark, ())
    system.look_again()
    surplus = tuple(_surplus(nothing, system, kinds))
    removed: list[Difference] = []

    def gone(found: Found) -> None:
        removed.append(Difference(found.identity, "is removed"))
        report(removed[-1])

    _remove(surplus, system, gone)
    system.network.close()
    system.look_again()
    left = tuple(found for item in _surplus(nothing, system, kinds) for found in item.found)
    if left:
        raise NotReady(*(Problem(system.host, f"{found.identity} could not be removed") for found in left))
    return tuple(removed)


def wait_until_ready(resources: Sequence[Resource], system: System) -> None:
    """Wait until each resource says that it is ready; raise NotReady with the last thing seen."""
    waiting = list(resources)

    def all_ready() -> bool | NotYet:
        system.look_again()
        seen: list[str] = []
        for item in tuple(waiting):
            said = item.ready(system)
            if said is None:
                waiting.remove(item)
            else:
                seen.append(f"{item.identity}: {said}")
        return NotYet("; ".join(seen)) if seen else True

    until(
        all_ready,
        deadline_s=system.timeouts.ready,
        what="an answer of every program",
        where=system.host,
        hint=f"see what a program said: ./lab logs {system.host} PROGRAM",
        slowest=_SLOWEST_S,
    )


def _drift(resources: Iterable[Resource], system: System) -> Iterator[Drift]:
    #: Name of what cannot be made -> why not.
    lost: dict[str, Difference] = {}
    for resource in resources:
        cause = next((lost[name] for name in resource.needs if name in lost), None)
        if cause is None:
            try:
                seen = resource.observe(system)
            except NotOurs as error:
                difference = Difference(resource.identity, error.what, error.remedy)
            else:
                if seen is not None:
                    yield Drift(resource, Difference(resource.identity, seen), blocked=False)
                continue
        else:
            # The remedy is told where the cause is.
            difference = Difference(resource.identity, f"cannot be made without {cause.identity}, which is blocked")
        lost |= dict.fromkeys(resource.provides, difference)
        yield Drift(resource, difference, blocked=True)


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


def _remove(surplus: Iterable[_Surplus], system: System, gone: Callable[[Found], None] = lambda _: None) -> None:
    for item in surplus:
        if item.everything and item.kind.remove_all:
            item.kind.remove_all(system)
        else:
            for found in item.found:
                if found.prepare:
                    found.prepare(system)
            for found in item.found:
                found.remove(system)
            system.network.flush()
        for found in item.found:
            gone(found)
