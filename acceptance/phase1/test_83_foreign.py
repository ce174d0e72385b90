"""What is not ours and in the way: one difference among others, left alone, and said how to take it away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from acceptance.kernel import difference, snapshot
from acceptance.phase1.cases import Seat, seats
from acceptance.phase1.conftest import LastSeen
from acceptance.provisioning import provision
from underlay.hosts.base import Host, Lab
from underlay.topology import Plan, Program

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


CASES: Mapping[str, Foreign] = {
    "a file that lost its mark": Foreign(
        lambda seat: [f"echo nameserver 192.0.2.1 > /etc/netns/{seat.replica.namespace}/resolv.conf"],
        lambda seat: f"file /etc/netns/{seat.replica.namespace}/resolv.conf",
        lambda seat: f"grep -qx 'nameserver 192.0.2.1' /etc/netns/{seat.replica.namespace}/resolv.conf",
    ),
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
}


@pytest.fixture
def here(lab: Lab, plan: Plan) -> Iterator[tuple[Host, list[Seat]]]:
    """Lend the first host with services, and what is on it but its database; it is as planned again afterwards."""
    host = next(lab.hosts[item.name] for item in plan.hosts if plan.services_on(item.name))
    yield (
        host,
        [
            seat
            for seat in seats(plan)
            if seat.service.host == host.name and seat.service.program is not Program.POSTGRES
        ],
    )
    for remedy in set(provision(host, "check").remedies.values()):  # of a test that has failed
        if found := _REMEDY.search(remedy):
            host.run(["sh", "-c", found[2]])
    report = provision(host, "converge")
    assert report.exit_code == 0, f"{host.name}: expected: as planned again; seen: {report}"


def _state(host: Host, foreign: Foreign, seat: Seat) -> frozenset[str]:
    """Return what the kernel says of the foreign thing: addresses, ports, parameters, processes."""
    if foreign.its_own is None:
        return frozenset()
    state, own = snapshot(host), re.compile(foreign.its_own(seat))
    return frozenset(line for line in state.lines() | state.surroundings() if own.search(line))


@pytest.mark.parametrize("case", CASES)
def test_rest_goes_on(here: tuple[Host, list[Seat]], last_seen: LastSeen, case: str) -> None:
    host, some = here
    foreign, victim, other = CASES[case], some[0], some[-1]
    if victim.replica.name == other.replica.name:
        pytest.skip("the plan has one replica alone on this host")
    before = last_seen.snapshots[host.name].lines()
    elsewhere = f"file /etc/netns/{other.replica.namespace}/resolv.conf"
    host.run(["sh", "-e", "-c", "\n".join([*foreign.commands(victim), f"rm {elsewhere.removeprefix('file ')}"])])
    named = foreign.named(victim)
    found = _state(host, foreign, victim)

    checked = provision(host, "check")
    assert checked.exit_code == 1, f"{host.name}: expected: differences (exit 1); seen: {checked}"
    for wanted in (named, elsewhere):
        assert wanted in checked.resources, f"{host.name}: expected: check names {wanted}; seen: {checked.resources}"
    remedy = _REMEDY.search(checked.remedies[named])
    assert remedy, f"{host.name}: expected: a command to paste for {named}; seen: {checked.remedies[named]!r}"
    assert remedy[1] == host.name, f"expected: the command is for {host.name}; seen: {remedy[0]}"

    blocked = provision(host, "converge")
    assert blocked.exit_code == 3, f"{host.name}: expected: it cannot be done (exit 3); seen: {blocked}"
    assert remedy[0] in blocked.output, f"{host.name}: expected: converge says `{remedy[0]}`; seen: {blocked}"
    again = provision(host, "check")
    assert again.exit_code == 1, f"{host.name}: expected: what is in the way is a difference (exit 1); seen: {again}"
    assert named in again.resources, f"{host.name}: expected: {named} is still in the way; seen: {again}"
    assert elsewhere not in again.resources, f"{host.name}: expected: {elsewhere} was mended; seen: {again}"
    left_alone = host.run(["sh", "-c", foreign.still_there(victim)], check=False)
    assert left_alone.ok, f"{host.name}: expected: what is not ours is left alone; seen: {left_alone}"
    put = difference(found, _state(host, foreign, victim))
    assert not put, f"{host.name}: expected: nothing is put on or into what is not ours; seen:\n{put}"

    host.run(["sh", "-c", remedy[2]])
    mended = provision(host, "converge")
    assert mended.exit_code == 0, f"{host.name}: expected: converge mends all after `{remedy[2]}`; seen: {mended}"
    left = difference(before, snapshot(host).lines())
    assert not left, f"{host.name}: expected: the same kernel state as before; seen:\n{left}"
