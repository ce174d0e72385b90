"""No moment in which somebody gets into the tunnel who may not, and none in which who may does not: beside all else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from acceptance.phase3.stage import ByTunnel
from acceptance.provisioning import PROGRAM, Report, phases_on, provision
from acceptance.suite.knocking import LONGEST, Knocking, knock
from acceptance.suite.stage import Seat
from underlay.hosts.base import Host
from underlay.topology import flow_pairs, in_containers

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

#: Rounds, and connections of a flow that must not fail: fewer would prove little.
_ROUNDS, _CONNECTIONS = 5, 50
#: The program of dockerd, where phase 2 is on.
_DOCKER = "docker"


@dataclass(frozen=True, slots=True)
class Told:
    """What came of the knocking, by host, and what each run of provisioning said."""

    knockings: Mapping[str, Knocking]
    reports: Mapping[str, Report]


def _hosts(tunnel: ByTunnel) -> Mapping[str, Host]:
    return {name: tunnel.lab.hosts[name] for name in tunnel.stretched.bridges}


@contextmanager
def _knocking(tunnel: ByTunnel, caller: Seat | None, called: Seat) -> Iterator[dict[str, Knocking]]:
    """Knock from both hosts while something answers everywhere; with a caller, his way to the called is steady."""
    targets = [(str(seat.address), seat.service.port) for seat in tunnel.seats()]
    found: dict[str, Knocking] = {}
    lists: dict[str, list[Knocking]] = {}
    ready = tunnel.plan.timeouts.ready
    with tunnel.serving(ready * LONGEST), ExitStack() as stack:
        for name, host in _hosts(tunnel).items():
            steady = [(caller.name, str(called.address), called.service.port)] if caller and caller.host == name else []
            lists[name] = stack.enter_context(knock(host, targets, steady, ready))
        yield found
    found |= {name: item[0] for name, item in lists.items()}


@pytest.fixture(scope="module")
def beside(tunnel: ByTunnel, caller: Seat, called: Seat) -> Told:
    """Take phase 1 away and make it again on the caller's host, and have its dockerd start anew."""
    host, reports = tunnel.machine(caller), {}
    on = phases_on(host, PROGRAM)
    if "phase1" not in on:
        pytest.skip(f"phase 1 is not on {host.name}")
    with _knocking(tunnel, caller, called) as found:
        if "phase2" in on and host.name == in_containers(tunnel.lab.plan).host:
            host.run(["supervisorctl", "restart", _DOCKER], timeout=tunnel.plan.timeouts.ready)
        try:
            reports["remove phase1"] = provision(host, "remove", "phase1")
        finally:
            reports["converge phase1"] = provision(host, "converge", "phase1")
        reports["check phase3"] = provision(host, "check", tunnel.phase)
    for phase in sorted(on - {tunnel.phase}):  # what the others wait for has nothing to do with the tunnel
        reports[f"converge {phase}"] = provision(host, "converge", phase)
    return Told(found, reports)


@pytest.fixture(scope="module")
def turned(tunnel: ByTunnel, called: Seat) -> Told:
    """Take the tunnel away and make it again, on one host after the other."""
    reports = {}
    with _knocking(tunnel, None, called) as found:
        for name, host in _hosts(tunnel).items():
            try:
                reports[f"remove on {name}"] = provision(host, "remove", tunnel.phase)
            finally:
                reports[f"converge on {name}"] = provision(host, "converge", tunnel.phase)
    return Told(found, reports)


def _assert_nobody_else(told: Told, tunnel: ByTunnel) -> None:
    plan = tunnel.plan
    ways = {(str(source.ip), f"{item.ip}:{target.port}") for source, target, item in flow_pairs(plan)}
    # Each reaches itself without a rule.
    ways |= {(str(seat.address), f"{seat.address}:{seat.service.port}") for seat in tunnel.seats()}
    for name, knocking in told.knockings.items():
        assert knocking.rounds > _ROUNDS, f"{name}: expected: many rounds; seen: {knocking.rounds}"
        longest = tunnel.plan.timeouts.connect
        assert knocking.longest < longest, f"{name}: expected: no gap of {longest} s; seen: {knocking.longest:.1f} s"
        denied = {way: count for way, count in knocking.through.items() if way not in ways}
        assert not denied, f"{name}: in {knocking.rounds} rounds: expected: none of these; seen: {denied}"
    seen = {way for knocking in told.knockings.values() for way in knocking.through}
    assert seen, "expected: who knocks sees the allowed ways; seen: nothing"


def _assert_good(reports: Mapping[str, Report]) -> None:
    for step, report in reports.items():
        assert report.exit_code == 0, f"{step}: expected: exit 0; seen: {report}"


def test_nobody_gets_in_while_others_come_and_go(beside: Told, tunnel: ByTunnel) -> None:
    _assert_nobody_else(beside, tunnel)


def test_flow_of_the_tunnel_never_fails_while_others_come_and_go(beside: Told, caller: Seat) -> None:
    knocking = beside.knockings[caller.host]
    assert knocking.made > _CONNECTIONS, f"expected: many connections; seen: {knocking.made}"
    assert not knocking.failed, f"of {knocking.made}: expected: none fails; seen: {knocking.failed}"


def test_every_step_of_others_succeeds(beside: Told) -> None:
    _assert_good(beside.reports)


def test_nobody_gets_in_while_the_tunnel_goes_and_comes(turned: Told, tunnel: ByTunnel) -> None:
    _assert_nobody_else(turned, tunnel)


def test_every_step_of_the_tunnel_succeeds(turned: Told) -> None:
    _assert_good(turned.reports)
