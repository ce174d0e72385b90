"""Published ports without docker-proxy: with `userland-proxy` off, the kernel alone leads every caller there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from acceptance.phase2.moments import healthy
from acceptance.phase2.stage import SETTINGS, InContainers
from acceptance.provisioning import provision
from acceptance.suite.arrivals import Probers, arrive, intrude
from acceptance.suite.cases import Visit
from acceptance.suite.stage import Seat
from acceptance.traffic import Outcome
from underlay.topology import Program

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

_SETTINGS = f"{SETTINGS}/docker.json"
_PROXY = "docker-proxy"


@dataclass(frozen=True, slots=True)
class Without:
    """What came of calls of the published ports, by the visit's name, and by those who may not; what proxies ran."""

    arrivals: Mapping[str, Outcome]
    uninvited: Mapping[str, list[Outcome]]
    proxies: str


@pytest.fixture(scope="module")
def without(containers: InContainers, probers: Probers) -> Iterator[Without]:
    """Have the daemon started again without it; afterwards all is as planned."""
    name, ready = containers.containers.host, containers.plan.timeouts.ready
    if name is None or not containers.plan.published:
        pytest.skip("the plan has no containers, or publishes nothing")
    host = containers.lab.hosts[name]
    try:
        settings = json.loads(host.run(["cat", _SETTINGS]).stdout) | {"userland-proxy": False}
        host.run(["tee", _SETTINGS], stdin=json.dumps(settings))
        host.run(["supervisorctl", "restart", "docker"], timeout=ready)
        healthy(containers, ready)
        proxies = host.run(["pgrep", "--exact", _PROXY], check=False).stdout
        yield Without(arrive(containers, probers), intrude(containers, probers), proxies)
    finally:
        report = provision(host, "converge", containers.phase)
        healthy(containers, ready)
    assert report.exit_code == 0, f"{name}: expected: exit 0; seen: {report}"


def test_no_proxy_runs(without: Without) -> None:
    assert not without.proxies, f"expected: no process {_PROXY}; seen: {without.proxies.split()}"


def test_published_port_answers_without_a_proxy(without: Without, visit: Visit, containers: InContainers) -> None:
    """From everywhere. Who calls from the host or from another network of it is seen with the bridge's address."""
    outcome = without.arrivals[visit.name]
    outcome.assert_connected()
    assert outcome.status == 200, f"expected: 200; seen: {outcome} {outcome.body}"
    plan = containers.plan
    service = plan.service(visit.entry.service)
    if service.program is Program.NGINX:
        near = visit.member is not None or visit.machine == visit.entry.host
        wanted = plan.tier(service.tier).gateway.ip if near else containers.seen_as(visit)
        seen = outcome.headers.get("x-client-address")
        assert seen == str(wanted), f"{visit.name}: expected: seen as {wanted}; seen as {seen}"


def test_who_may_not_go_out_gets_no_answer_without_a_proxy(
    without: Without, confined_seat: Seat, containers: InContainers
) -> None:
    for outcome in without.uninvited[confined_seat.name]:
        assert not outcome.connected, f"expected: nobody answers {confined_seat.name}; seen: {outcome}"
