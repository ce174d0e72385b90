"""Drift: whatever is changed by hand, `check` names it, and `converge` mends it and starts nothing else again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from acceptance.phase2.drifts import DOCKERS_RULES, DRIFTS, ROUNDS
from acceptance.phase2.moments import healthy
from acceptance.phase2.stage import InContainers
from acceptance.provisioning import Report, provision
from acceptance.suite.stage import Seat, members
from underlay.hosts.base import Host
from underlay.topology import Program

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds


@dataclass(frozen=True, slots=True)
class Broken:
    """What was changed in one round, to whom, and what came of it: ``touched`` are those who were started again."""

    victims: Mapping[str, Seat]
    checked: Report
    mended: Report
    again: Report
    touched: frozenset[str]

    def named(self, kind: str) -> str:
        """Return what check must name for one kind."""
        victim = self.victims[kind]
        return DRIFTS[kind].named(victim.name, _network(victim))

    def unrelated(self) -> list[str]:
        """Return what check names although nothing that was changed explains it."""
        expected = {self.named(kind) for kind in self.victims}
        follows = tuple(word for kind in self.victims for word in DRIFTS[kind].follows)
        return [
            item for item in self.checked.resources if item not in expected and not item.startswith(follows or ("!",))
        ]


class Rounds:
    """The rounds, each done when it is first asked for; if one fails, the host is put right before the next."""

    def __init__(self, stage: InContainers) -> None:
        self._stage = stage
        self._done: dict[tuple[str, ...], Broken] = {}
        # The database is left alone: others cannot do without it, and it is slow to come back.
        useful = [seat for seat in stage.seats() if seat.service.program is not Program.POSTGRES]
        self.victims = sorted(useful, key=lambda seat: seat.service.program is not Program.REDIS)
        if not useful or self.victims[0].service.program is not Program.REDIS:
            pytest.skip("the plan has no cache")
        self.host = stage.machine(self.victims[0])
        most = max(len(kinds) for kinds in ROUNDS)
        self._rounds = ROUNDS if len(self.victims) >= most else tuple((kind,) for kind in DRIFTS)

    def of(self, kind: str) -> Broken:
        """Return the round of a kind."""
        kinds = next(kinds for kinds in self._rounds if kind in kinds)
        if kinds not in self._done:
            self._done[kinds] = self._go(kinds)
        return self._done[kinds]

    def _go(self, kinds: tuple[str, ...]) -> Broken:
        stage, victims = self._stage, dict(zip(kinds, self.victims, strict=False))
        before = _started(stage)
        try:
            for kind, victim in victims.items():
                _break(self.host, DRIFTS[kind].commands(victim.name, _network(victim)))
            checked = provision(self.host, "check", stage.phase)
        finally:
            mended = provision(self.host, "converge", stage.phase)
        again = provision(self.host, "check", stage.phase)
        healthy(stage, stage.plan.timeouts.ready)
        after = _started(stage)
        touched = frozenset(item for item in before if before[item] != after[item])
        return Broken(victims, checked, mended, again, touched)


def _network(seat: Seat) -> str:
    return f"shop_{seat.tier.name}"


@pytest.fixture(scope="module")
def rounds(containers: InContainers) -> Rounds:
    """Return the rounds of this lab."""
    return Rounds(containers)


def _started(stage: InContainers) -> dict[str, object]:
    said = stage.inspect([member.name for member in members(stage.plan)])
    states = {name: item.get("State") if item else None for name, item in said.items()}
    return {name: state.get("StartedAt") if isinstance(state, Mapping) else None for name, state in states.items()}


def _break(host: Host, commands: Sequence[str]) -> None:
    host.run(["sh", "-e", "-c", "\n".join(commands)])


@pytest.mark.parametrize("kind", [kind for kinds in ROUNDS for kind in kinds])
def test_drift_is_named_and_mended(rounds: Rounds, kind: str) -> None:
    broken = rounds.of(kind)
    where, wanted, checked = rounds.host.name, broken.named(kind), broken.checked
    assert checked.exit_code == 1, f"{where}: expected: check fails; seen: {checked}"
    assert wanted in checked.resources, f"{where}: expected: {wanted} is named; seen: {checked}"
    others, every = broken.unrelated(), sorted(broken.named(item) for item in broken.victims)
    assert not others, f"{where}: expected: {every} alone; seen besides: {others}"
    assert broken.mended.exit_code == 0, f"{where}: expected: converge mends it; seen: {broken.mended}"
    again = broken.again
    assert (again.exit_code, again.resources) == (0, ()), f"{where}: expected: 0 differences; seen: {again}"
    allowed = frozenset(name for item, seat in broken.victims.items() for name in DRIFTS[item].restarts(seat.name))
    assert "*" in allowed or broken.touched <= allowed, (
        f"{where}: expected: started again: {sorted(allowed) or 'nobody'}; seen: {sorted(broken.touched)}"
    )


def test_every_kind_is_in_a_round() -> None:
    kinds = [kind for kinds in ROUNDS for kind in kinds]
    assert sorted(kinds) == sorted(DRIFTS), f"expected: each kind once; seen: {set(kinds) ^ set(DRIFTS)}"


def test_published_port_that_no_rule_leads_to_is_named_and_mended(containers: InContainers) -> None:
    stage = containers
    if not stage.plan.published or stage.containers.host is None:
        pytest.skip("the plan publishes nothing")
    host = stage.lab.hosts[stage.containers.host]
    try:
        _break(host, ["iptables -w -t nat -F DOCKER"])
        found = provision(host, "check", stage.phase)
    finally:
        mended = provision(host, "converge", stage.phase)
    assert found.resources == (DOCKERS_RULES,), f"{host.name}: expected: {DOCKERS_RULES} alone; seen: {found}"
    assert mended.exit_code == 0, f"{host.name}: expected: converge mends it; seen: {mended}"
    healthy(stage, stage.plan.timeouts.ready)


def test_settings_that_were_changed_are_put_back_and_read_again(containers: InContainers) -> None:
    """A container may have read them meanwhile."""
    stage = containers
    seat = next((item for item in stage.seats() if item.service.program is Program.NGINX), None)
    if seat is None:
        pytest.skip("the plan has no edge")
    host, before = stage.machine(seat), _started(stage)
    places = "{{range .Mounts}}{{println .Source}}{{end}}"
    (path,) = host.run(["docker", "inspect", "--format", places, seat.name]).stdout.split()
    try:
        host.run(["sh", "-c", f"echo '# more' >>{path}"])
        found = provision(host, "check", stage.phase)
    finally:
        mended = provision(host, "converge", stage.phase)
    wanted = {f"file {path}", f"container {seat.name}"}
    assert set(found.resources) == wanted, f"{host.name}: expected: {wanted}; seen: {found}"
    assert mended.exit_code == 0, f"{host.name}: expected: converge mends it; seen: {mended}"
    touched = {name for name, moment in _started(stage).items() if before[name] != moment}
    assert touched == {seat.name}, f"{host.name}: expected: started again: {seat.name}; seen: {sorted(touched)}"
    healthy(stage, stage.plan.timeouts.ready)


def test_secret_that_was_changed_is_put_back_and_read_again(containers: InContainers) -> None:
    """Nobody knows what a container has read whose secret is not as planned."""
    stage = containers
    seat = next((item for item in stage.seats() if item.service.program is Program.PRODUCT), None)
    if seat is None:
        pytest.skip("the plan has no product service")
    host, before = stage.machine(seat), _started(stage)
    path = stage.secret(seat)
    try:
        host.run(["sh", "-c", f"echo wrong >{path}"])
        found = provision(host, "check", stage.phase)
    finally:
        mended = provision(host, "converge", stage.phase)
    assert f"file {path}" in found.resources, f"{host.name}: expected: file {path} is named; seen: {found}"
    assert mended.exit_code == 0, f"{host.name}: expected: converge mends it; seen: {mended}"
    after = _started(stage)
    touched = {name for name in before if before[name] != after[name]}
    wanted = {item.name for item in stage.seats() if item.service == seat.service}
    assert touched == wanted, f"{host.name}: expected: started again: {sorted(wanted)}; seen: {sorted(touched)}"
