"""After `remove` the host is as it was before phase 1."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from acceptance.kernel import difference
from acceptance.suite.cycle import Cycle
from underlay.topology import Plan

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

#: Links that a host has without us, by kind.
_OWN_KINDS = {"loopback", "ether"}
_DOCKER, _DOCKER_CHAIN = "docker0", ":DOCKER"


def test_removal_succeeds(cycles: Mapping[str, Cycle], busy_host: str) -> None:
    for report in (cycles[busy_host].first_removal, cycles[busy_host].second_removal):
        assert report.exit_code == 0, f"{busy_host}: expected: exit 0; seen: {report}"
        assert report.resources, f"{busy_host}: expected: it says what it removed; seen: {report}"


def test_state_after_removal_is_that_before(cycles: Mapping[str, Cycle], busy_host: str) -> None:
    """Kernel state, with settings that were the host's own, and files."""
    cycle = cycles[busy_host]
    left = difference(cycle.own.lines(files=True), cycle.removed_again.lines(files=True))
    assert not left, f"{busy_host}: expected: the state before (-); seen (+):\n{left}"


#: Brings the phases back that were on, when the host starts.
_BOOT_PROGRAM = "underlay-boot "


def test_nothing_of_ours_is_left(cycles: Mapping[str, Cycle], busy_host: str, plan: Plan) -> None:
    cycle = cycles[busy_host]
    state = cycle.removed
    assert not state.namespaces, f"{busy_host}: expected: no namespaces; seen: {sorted(state.namespaces)}"
    wire = state.root.with_address(plan.host(busy_host).address.ip)
    links = [
        link.name
        for link in state.root.links.values()
        if link.kind not in _OWN_KINDS and link.name not in {wire.name, _DOCKER}
    ]
    assert not links, f"{busy_host}: expected: no links but its own; seen: {links}"
    routes = [
        route for route in state.root.routes for tier in plan.tiers
        if route.destination.prefixlen and route.destination.overlaps(tier.subnet)
    ]  # fmt: skip
    assert not routes, f"{busy_host}: expected: no routes to tiers; seen: {routes}"
    rules = [line for line in state.rules if "PHASE1" in line or "underlay" in line]
    assert not rules, f"{busy_host}: expected: no rules of ours; seen: {rules}"
    # Docker, once it has run, forwards too, and drops what it does not know.
    if not any(line.startswith(_DOCKER_CHAIN) for line in state.rules):
        policy = [line for line in state.rules if line.startswith(":FORWARD DROP")]
        assert not policy, f"{busy_host}: expected: no policy of ours; seen: {policy}"
        forward = state.root.parameters["net.ipv4.ip_forward"]
        assert forward == "0", f"{busy_host}: expected: ip_forward is 0 as before; seen: {forward}"
    # The host's own program of the boot is not the phase's; it has done its work.
    programs_left = [line for line in cycle.programs_left.splitlines() if not line.startswith(_BOOT_PROGRAM)]
    assert not programs_left, f"{busy_host}: expected: no supervised programs; seen: {programs_left}"
    processes = [f"{item.namespace}: {item.words}" for item in state.processes if item.namespace]
    assert not processes, f"{busy_host}: expected: no process in another namespace; seen: {processes}"
    files = [line for line in state.files if "phase1" in line or line.startswith(("/etc/netns", "/run/underlay"))]
    assert not files, f"{busy_host}: expected: no files of ours; seen: {files}"
    assert not state.users, f"{busy_host}: expected: no users of ours; seen: {state.users}"
    programs = [line for line in state.files if line.startswith("/etc/supervisor/conf.d/")]
    assert not programs, f"{busy_host}: expected: no programs configured; seen: {programs}"


def test_the_hosts_own_resolver_is_untouched(cycles: Mapping[str, Cycle], busy_host: str) -> None:
    def resolver(files: tuple[str, ...]) -> list[str]:
        return [line for line in files if line.startswith("/etc/resolv.conf ")]

    cycle = cycles[busy_host]
    before, during = resolver(cycle.removed.files), resolver(cycle.made.files)
    assert before == during, f"{busy_host}: expected: /etc/resolv.conf is {before}; seen with phase 1: {during}"


def test_converge_makes_it_all_again(cycles: Mapping[str, Cycle], busy_host: str) -> None:
    cycle = cycles[busy_host]
    assert cycle.converged_again.exit_code == 0, f"{busy_host}: expected: exit 0; seen: {cycle.converged_again}"
    left = difference(cycle.made.lines(), cycle.made_again.lines())
    assert not left, f"{busy_host}: expected: the state before (-); seen (+):\n{left}"
