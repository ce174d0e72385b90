"""After `remove` the host is as it was before phase 1."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from acceptance.kernel import of_docker
from acceptance.observe import CONTAINER
from acceptance.suite.cycle import Cycle
from underlay.topology import Plan, across

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

#: Links that a host has without us, by kind.
_OWN_KINDS = {"loopback", "ether"}
_DOCKER_CHAIN = ":DOCKER"


#: Brings the phases back that were on, when the host starts.
_BOOT_PROGRAM = "underlay-boot "


def test_nothing_of_ours_is_left(cycles: Mapping[str, Cycle], busy_host: str, plan: Plan) -> None:
    cycle = cycles[busy_host]
    state, tunnel = cycle.removed, across(plan)
    namespaces = set(state.namespaces) - tunnel.namespaces(busy_host)
    assert not namespaces, f"{busy_host}: expected: no namespaces; seen: {sorted(namespaces)}"
    wire = state.root.with_address(plan.host(busy_host).address.ip)
    links = [
        link.name
        for link in state.root.links.values()
        if link.kind not in _OWN_KINDS and link.name != wire.name and not of_docker(link)
        if link.name not in tunnel.links(busy_host)
    ]
    assert not links, f"{busy_host}: expected: no links but its own; seen: {links}"
    routes = [
        route for route in state.root.routes for tier in plan.tiers
        if route.destination.prefixlen and route.destination.overlaps(tier.subnet)
    ]  # fmt: skip
    assert not routes, f"{busy_host}: expected: no routes to tiers; seen: {routes}"
    rules = [line for line in state.rules if "PHASE1" in line or "underlay phase1" in line]
    assert not rules, f"{busy_host}: expected: no rules of ours; seen: {rules}"
    # Docker, once it has run, forwards too, and drops what it does not know.
    if not any(line.startswith(_DOCKER_CHAIN) for line in state.rules):
        policy = [line for line in state.rules if line.startswith(":FORWARD DROP")]
        assert not policy, f"{busy_host}: expected: no policy of ours; seen: {policy}"
        forward = state.root.parameters["net.ipv4.ip_forward"]
        assert forward == "0", f"{busy_host}: expected: ip_forward is 0 as before; seen: {forward}"
    # The host's own program of the boot is not the phase's; it has done its work.
    programs_left = [line for line in cycle.programs_left if not line.startswith(_BOOT_PROGRAM)]
    assert not programs_left, f"{busy_host}: expected: no supervised programs; seen: {programs_left}"
    elsewhere = [item for item in state.processes if item.namespace not in {None, CONTAINER}]
    processes = [f"{item.namespace}: {item.words}" for item in elsewhere]
    assert not processes, f"{busy_host}: expected: no process in another namespace; seen: {processes}"
    files = [line for line in state.files if "phase1" in line or line.startswith(("/etc/netns", "/run/underlay"))]
    assert not files, f"{busy_host}: expected: no files of ours; seen: {files}"
    assert not state.users, f"{busy_host}: expected: no users of ours; seen: {state.users}"
