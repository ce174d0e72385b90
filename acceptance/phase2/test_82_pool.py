"""The plan's pool of addresses changes: the first run follows it, from the daemon to each container."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from acceptance.phase2.moments import healthy
from acceptance.phase2.stage import InContainers
from acceptance.provisioning import command, provision, read_report
from underlay.hosts.base import Host
from underlay.topology import Plan, in_containers, render_plan

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

#: Nobody's plan has it (RFC 2544).
_POOL = IPv4Network("198.18.0.0/16")
_PLAN = "/run/plan-of-the-test.yaml"


def _addresses(host: Host, plan: Plan) -> dict[str, str]:
    """Return what address each replica has at home, as Docker says."""
    found = {}
    for service, replica in plan.replicas():
        place = f"{{{{.NetworkSettings.Networks.shop_{service.tier}.IPAddress}}}}"
        found[replica.name] = host.run(["docker", "inspect", "--format", place, replica.name]).stdout.strip()
    return found


def test_changed_pool_is_followed_at_once(containers: InContainers) -> None:
    name, recorded, ready = containers.containers.host, containers.lab.plan, containers.plan.timeouts.ready
    if name is None:
        pytest.skip("the plan has no containers")
    host = containers.lab.hosts[name]
    moved = replace(recorded, pools=replace(recorded.pools, docker=_POOL))
    host.run(["tee", _PLAN], stdin=render_plan(moved))
    try:
        words = command("converge", containers.phase, "--json", "--plan", _PLAN)
        done = host.run(words, check=False, timeout=4 * ready)
        report = read_report(name, done.returncode, done.stdout, done.stderr)
        assert report.exit_code == 0, f"{name}: expected: the first run follows it; seen: {report}"
        seen = _addresses(host, containers.plan)
    finally:
        host.run(["rm", _PLAN])
        back = provision(host, "converge", containers.phase)
    wanted = {replica.name: str(replica.ip) for _, replica in in_containers(moved).plan.replicas()}
    assert seen == wanted, f"{name}: expected: {wanted}; seen: {seen}"
    assert back.exit_code == 0, f"{name}: expected: and back; seen: {back}"
    again = provision(host, "check", containers.phase)
    assert (again.exit_code, again.resources) == (0, ()), f"{name}: expected: 0 differences; seen: {again}"
    healthy(containers, ready)
