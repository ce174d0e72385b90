"""A container of somebody else's, on Docker's default bridge: it gets out, and into no phase."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from acceptance.phase2.stage import InContainers
from acceptance.provisioning import PROGRAM, phases_on
from acceptance.suite.stage import members
from acceptance.traffic import Attempt, Listener, Prober
from underlay.topology import Plan

_NAME = "stranger"


@pytest.fixture
def stranger(containers: InContainers) -> Iterator[str]:
    """Lend one; return the path of its network namespace."""
    name = containers.containers.host
    if name is None:
        pytest.skip("the plan has no containers")
    host = containers.lab.hosts[name]
    member = next(members(containers.plan))
    image = host.run(["docker", "inspect", "--format", "{{.Config.Image}}", member.name]).stdout.strip()
    words = ["--name", _NAME, "--pull", "never", "--no-healthcheck", "--entrypoint", "sleep", image, "infinity"]
    try:
        host.run(["docker", "run", "--detach", *words])
        pid = host.run(["docker", "inspect", "--format", "{{.State.Pid}}", _NAME]).stdout.strip()
        yield f"/proc/{pid}/ns/net"
    finally:
        host.run(["docker", "rm", "--force", _NAME])


def _services(plan: Plan) -> list[tuple[str, int]]:
    """Return a replica of each service."""
    return [(str(service.replicas[0].ip), service.port) for service in plan.services]


def test_container_on_the_default_bridge_comes_into_no_phase(
    containers: InContainers, stranger: str, probers: Mapping[str, Prober]
) -> None:
    """Docker accepts what comes from there, before any rule of phase 1 is asked."""
    lab, name = containers.lab, str(containers.containers.host)
    goals = _services(containers.plan)
    if "phase1" in phases_on(lab.hosts[name], PROGRAM):
        goals += _services(lab.plan)
    away = next((host for host in lab.hosts.values() if host.name != name), None)
    prober = Prober(lab.hosts[name], containers.plan)
    if away is not None:
        with probers[away.name].listening([Listener("tcp")]) as listening:
            prober.one(Attempt("tcp", str(away.address), listening.ports[0], stranger, who=_NAME)).assert_connected()
    attempts = [Attempt("tcp", address, port, stranger, who=_NAME) for address, port in goals]
    with ThreadPoolExecutor(len(attempts)) as pool:  # each waits until its time is over
        outcomes = list(pool.map(prober.one, attempts))
    for outcome in outcomes:
        assert not outcome.connected, f"expected: nobody answers a stranger; seen: {outcome}"
