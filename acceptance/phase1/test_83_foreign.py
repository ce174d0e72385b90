"""What is not ours and in the way: one difference among others, left alone, and said how to take it away."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from acceptance.conftest import LastSeen
from acceptance.kernel import difference, snapshot
from acceptance.provisioning import Report, provision
from acceptance.suite.stage import Seat, Stage
from underlay.hosts.base import Host
from underlay.topology import Program

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

_REMEDY = re.compile(r"\./lab exec (\S+) -- (.+)")
_CONFIGURATIONS = "/etc/supervisor/conf.d"


@dataclass(frozen=True, slots=True)
class Foreign:
    """How something of ours is replaced by something that is not, and what `check` must call it."""

    commands: Callable[[Seat], list[str]]
    named: Callable[[Seat], str]
    still_there: Callable[[Seat], str]
    its_own: Callable[[Seat], str] | None = None
    """A regular expression of the words that only it has in the kernel's state."""


#: The bridge comes first: what is plugged into it cannot be made either. The file comes last: a program that runs keeps
#: the resolv.conf that it has seen, so it is broken for the last replica, which in the shipped plan asks for no names.
CASES: Mapping[str, Foreign] = {
    "somebody's bridge": Foreign(
        lambda seat: [f"ip link delete {seat.tier.bridge}", f"ip link add {seat.tier.bridge} type bridge"],
        lambda seat: f"link {seat.tier.bridge}",
        lambda seat: f"ip link show {seat.tier.bridge} | grep -q 'group default'",
        lambda seat: rf"\b{seat.tier.bridge}\b",
    ),
    "somebody's namespace": Foreign(
        lambda seat: [f"ip netns delete {seat.replica.namespace}", f"ip netns add {seat.replica.namespace}"],
        lambda seat: f"namespace {seat.replica.namespace}",
        lambda seat: f"ip -n {seat.replica.namespace} link show lo | grep -q 'group default'",
        lambda seat: rf"\b{seat.replica.namespace}(/|$)",
    ),
    "a program's configuration that lost its mark": Foreign(
        lambda seat: [f"sed -i 1d {_CONFIGURATIONS}/{seat.replica.name}.conf"],
        lambda seat: f"program {seat.replica.name}",
        lambda seat: f"test -s {_CONFIGURATIONS}/{seat.replica.name}.conf",
    ),
    "a file that lost its mark": Foreign(
        lambda seat: [f"echo nameserver 192.0.2.1 > /etc/netns/{seat.replica.namespace}/resolv.conf"],
        lambda seat: f"file /etc/netns/{seat.replica.namespace}/resolv.conf",
        lambda seat: f"grep -qx 'nameserver 192.0.2.1' /etc/netns/{seat.replica.namespace}/resolv.conf",
    ),
}


#: All at once, each on a replica of its own, so that it costs one round of provisioning.
ROUND = tuple(CASES)


@dataclass(frozen=True, slots=True)
class Story:
    """What was put in the way in one round, and what was said and seen, step by step.

    ``elsewhere`` is something of ours that was broken besides. ``remedies`` are the commands that `check` gave for each
    case, ``left_alone`` the cases whose thing was there still after the first converge, ``put`` what that converge put
    on or into each.
    """

    victims: Mapping[str, Seat]
    elsewhere: str
    checked: Report
    remedies: Mapping[str, re.Match[str] | None]
    blocked: Report
    again: Report
    left_alone: frozenset[str]
    put: Mapping[str, str]
    mended: Report
    left: str


class Rounds:
    """The rounds, each done when it is first asked for; the host is as planned after each, whatever happened."""

    def __init__(self, stage: Stage, last_seen: LastSeen) -> None:
        name, here = next(iter(stage.by_host().items()))
        self.host = stage.lab.hosts[name]
        self._last_seen = last_seen
        self._done: dict[tuple[str, ...], Story] = {}
        # The database is left alone: others cannot do without it, and it is slow to come back.
        self._useful = [seat for seat in here if seat.service.program is not Program.POSTGRES]

    def of(self, case: str) -> Story:
        """Return the round of a case; skips if there is nothing that could be broken besides."""
        cases, some = ROUND, self._apart()
        if len(some) > len(cases):
            *first, other = some[: len(cases)]
            chosen = [*first, some[-1]]
        else:
            cases, chosen, other = (case,), self._useful[:1], self._useful[-1]
        if chosen[0].replica.name == other.replica.name:
            pytest.skip("the plan has one replica alone on this host")
        if cases not in self._done:
            try:
                self._done[cases] = self._go(dict(zip(cases, chosen, strict=True)), other)
            except BaseException:
                self.clear()
                raise
        return self._done[cases]

    def clear(self) -> None:
        """Take away what is in the way, as advised, and have the host as planned again."""
        for remedy in set(provision(self.host, "check").remedies.values()):
            if found := _REMEDY.search(remedy):
                self.host.run(["sh", "-c", found[2]])
        provision(self.host, "converge")

    def _apart(self) -> list[Seat]:
        """Return replicas none of which is in another's way: the tier of the first, whose bridge goes, has no other."""
        first = self._useful[0]
        return [first, *(seat for seat in self._useful if seat.tier != first.tier)]

    def _go(self, victims: Mapping[str, Seat], other: Seat) -> Story:
        host, before = self.host, self._last_seen.snapshots[self.host.name].lines()
        elsewhere = f"/etc/netns/{other.replica.namespace}/resolv.conf"
        lines = [line for case, seat in victims.items() for line in CASES[case].commands(seat)]
        host.run(["sh", "-e", "-c", "\n".join([*lines, f"rm {elsewhere}"])])
        found = _own_states(host, victims)
        checked = provision(host, "check")
        named = {case: CASES[case].named(seat) for case, seat in victims.items()}
        remedies = {case: _REMEDY.search(checked.remedies.get(name, "")) for case, name in named.items()}
        blocked = provision(host, "converge")
        again = provision(host, "check")
        now = _own_states(host, victims)
        put = {case: difference(found[case], now[case]) for case in victims}
        asked = [
            f"{{ {CASES[case].still_there(seat)}; }} && echo {shlex.quote(case)}" for case, seat in victims.items()
        ]
        left_alone = host.run(["sh", "-c", "\n".join([*asked, ":"])]).stdout.splitlines()
        host.run(["sh", "-c", "\n".join(found[2] for found in remedies.values() if found)])
        mended = provision(host, "converge")
        left = difference(before, snapshot(host).lines())
        alone = frozenset(left_alone)
        return Story(victims, f"file {elsewhere}", checked, remedies, blocked, again, alone, put, mended, left)


@pytest.fixture(scope="module")
def rounds(stage: Stage, last_seen: LastSeen) -> Iterator[Rounds]:
    """Return the rounds of this lab."""
    made = Rounds(stage, last_seen)
    yield made
    made.clear()
    report = provision(made.host, "converge")
    assert report.exit_code == 0, f"{made.host.name}: expected: as planned again; seen: {report}"


def _own_states(host: Host, victims: Mapping[str, Seat]) -> Mapping[str, frozenset[str]]:
    """Return what the kernel says of each foreign thing: addresses, ports, parameters, processes."""
    state = snapshot(host)
    lines = state.lines() | state.surroundings()

    def own(foreign: Foreign, seat: Seat) -> frozenset[str]:
        words = re.compile(foreign.its_own(seat)) if foreign.its_own else None
        return frozenset(line for line in lines if words and words.search(line))

    return {case: own(CASES[case], seat) for case, seat in victims.items()}


@pytest.mark.parametrize("case", CASES)
def test_rest_goes_on(rounds: Rounds, case: str) -> None:
    story, where = rounds.of(case), rounds.host.name
    named, elsewhere = CASES[case].named(story.victims[case]), story.elsewhere
    checked, blocked, again, mended = story.checked, story.blocked, story.again, story.mended

    assert checked.exit_code == 1, f"{where}: expected: differences (exit 1); seen: {checked}"
    for wanted in (named, elsewhere):
        assert wanted in checked.resources, f"{where}: expected: check names {wanted}; seen: {checked.resources}"
    remedy = story.remedies[case]
    assert remedy, f"{where}: expected: a command to paste for {named}; seen: {checked.remedies[named]!r}"
    assert remedy[1] == where, f"expected: the command is for {where}; seen: {remedy[0]}"
    others = {found[0] for other, found in story.remedies.items() if found and other != case}
    assert remedy[0] not in others, f"{where}: expected: a command for {named} alone; seen: {remedy[0]}"

    assert blocked.exit_code == 3, f"{where}: expected: it cannot be done (exit 3); seen: {blocked}"
    assert remedy[0] in blocked.output, f"{where}: expected: converge says `{remedy[0]}`; seen: {blocked}"
    assert again.exit_code == 1, f"{where}: expected: what is in the way is a difference (exit 1); seen: {again}"
    assert named in again.resources, f"{where}: expected: {named} is still in the way; seen: {again}"
    assert elsewhere not in again.resources, f"{where}: expected: {elsewhere} was mended; seen: {again}"
    put = story.put[case]
    assert not put, f"{where}: expected: nothing is put on or into what is not ours; seen:\n{put}"
    assert case in story.left_alone, f"{where}: expected: {case} is left alone; seen: it is no longer there"

    assert mended.exit_code == 0, f"{where}: expected: converge mends all after `{remedy[2]}`; seen: {mended}"
    assert not story.left, f"{where}: expected: the same kernel state as before; seen:\n{story.left}"
