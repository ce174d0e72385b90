"""Two phases on one host: either comes first, and either goes first."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from acceptance.kernel import Snapshot, snapshot
from acceptance.provisioning import ONE_MORE, Report, phases_on, provision
from acceptance.suite import flows
from acceptance.suite.cycle import FORWARDING
from acceptance.suite.flows import Matrix
from acceptance.suite.stage import Stage
from acceptance.traffic import Attempt, Listener, Outcome, Prober
from underlay.hosts.base import Host, Lab

_FIRST = "phase1"
#: A phase of the tests' own: a namespace behind a bridge that may go anywhere (tests/provision/second/phase9.py).
_SECOND = "phase9"
_SPACE, _SUBNET = "ninth-1", "198.18.9.0/24"


def settings(state: Snapshot) -> tuple[str, str]:
    """Return whether a host forwards, and its policy."""
    return state.root.parameters[FORWARDING], state.policy("FORWARD")


@dataclass(frozen=True, slots=True)
class Moment:
    """The host at one moment: what `check` says of each phase that should be on, and what its traffic does.

    ``told`` are the phases that the host itself says are on.
    """

    checks: Mapping[str, Report]
    told: frozenset[str]
    matrix: Matrix | None
    second: Outcome | None
    state: Snapshot

    @property
    def settings(self) -> tuple[str, str]:
        """Whether the host forwards, and its policy."""
        return settings(self.state)


@dataclass(frozen=True, slots=True)
class Story:
    """Step by step: the second comes, the first goes, the second goes; both come; the second goes.

    ``reports`` are those of all steps, ``before`` is the host before them. ``beside`` are phases that were there
    besides, and stay.
    """

    host: str
    beside: frozenset[str]
    reports: Mapping[str, Report]
    both: Moment
    second_alone: Moment
    bare: Moment
    both_again: Moment
    first_alone: Moment
    before: Snapshot


def _do(host: Host, verb: str, phase: str) -> Report:
    return provision(host, verb) if phase == _FIRST else provision(host, verb, _SECOND, program=ONE_MORE)


def _moment(stage: Stage, host: Host, *on: str) -> Moment:
    return Moment(
        checks={phase: _do(host, "check", phase) for phase in on},
        told=phases_on(host, ONE_MORE),
        matrix=flows.measure(stage, (flows.SERVICE,)) if _FIRST in on else None,
        second=_second_goes_out(stage.lab, host) if _SECOND in on else None,
        state=snapshot(host),
    )


def _second_goes_out(lab: Lab, host: Host) -> Outcome:
    """Connect from the second phase's namespace to another host, which is shown the way back."""
    away = next(item for item in lab.hosts.values() if item.name != host.name)
    with ExitStack() as stack:
        stack.callback(away.run, ["ip", "route", "delete", _SUBNET], check=False)
        away.run(["ip", "route", "add", _SUBNET, "via", str(host.address)])
        listening = stack.enter_context(Prober(away, lab.plan).listening([Listener("tcp")]))
        goal = Attempt("tcp", str(away.address), listening.ports[0], _SPACE, reply=True)
        # Where phase 1 is not, nothing counts what it denies.
        return Prober(host, lab.plan).one(goal)


def tell(stage: Stage, host: Host, before: Snapshot) -> Story:
    """Go through the steps on a host with services; at the end phase 1 is on it alone, whatever happened."""
    reports: dict[str, Report] = {}
    beside = phases_on(host, ONE_MORE) - {_FIRST, _SECOND}

    def do(verb: str, phase: str) -> None:
        reports[f"{len(reports) + 1}: {verb} {phase}"] = _do(host, verb, phase)

    try:
        do("converge", _SECOND)
        both = _moment(stage, host, _FIRST, _SECOND)
        do("remove", _FIRST)
        second_alone = _moment(stage, host, _SECOND)
        do("remove", _SECOND)
        bare = _moment(stage, host)
        do("converge", _SECOND)
        do("converge", _FIRST)
        both_again = _moment(stage, host, _FIRST, _SECOND)
        do("remove", _SECOND)
        first_alone = _moment(stage, host, _FIRST)
    finally:
        _do(host, "remove", _SECOND)
        reports["at the end: converge"] = _do(host, "converge", _FIRST)
    return Story(host.name, beside, reports, both, second_alone, bare, both_again, first_alone, before)
