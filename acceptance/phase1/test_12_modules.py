"""Our testinfra modules tell what they say they tell; the rest of the suite leans on them."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from acceptance.modules import LabHost
from acceptance.suite.flows import all_pairs
from acceptance.suite.stage import Stage
from underlay.topology import Plan


def _has(host: LabHost, address: IPv4Address) -> bool:
    return any(item.ip == address for link in host.links.values() for item in link.addresses)


def test_hosts_and_the_outside_are_where_the_plan_puts_them(
    host1: LabHost, host2: LabHost, outside: LabHost, plan: Plan
) -> None:
    places = {host1: plan.hosts[0].address.ip, host2: plan.hosts[1].address.ip, outside: plan.underlay.gateway.ip}
    for host, address in places.items():
        assert _has(host, address), f"{host.name}: expected: a link with {address}; seen: {dict(host.links)}"


@pytest.mark.parametrize("allowed", [True, False], ids=["allowed", "denied"])
def test_namespace_connects_as_the_plan_says_it(stage: Stage, *, allowed: bool) -> None:
    pair = next((pair for pair in all_pairs(stage.plan) if pair.allowed is allowed), None)
    if pair is None:
        pytest.skip("the plan has no such pair")
    host = LabHost(stage.machine(stage.seat(pair.source)), stage.plan)
    space, chain = host.namespace(pair.source.name), host.rules(stage.deny_chain)
    assert space.exists, f"{host.name}: expected: a namespace {space.name}; seen: none"
    before = chain.packets
    seen = space.connects(pair.target.name, pair.target.service.port)
    assert seen is allowed, f"{host.name}/{space.name}: expected: {pair.name} {allowed}; seen: {seen}"
    counted = chain.packets - before
    assert bool(counted) is not allowed, f"{host.name}: {pair.name}: expected: a denial is counted; seen: {counted}"


def test_namespace_that_is_not_there(host: LabHost) -> None:
    assert not host.namespace("nobody-1").exists, f"{host.name}: expected: no namespace nobody-1"


def test_program_is_the_process_in_the_namespace(stage: Stage, busy_host: str) -> None:
    host, seat = LabHost(stage.lab.hosts[busy_host], stage.plan), stage.seats(busy_host)[0]
    program = host.program(seat.name)
    assert program.is_running, f"{host.name}: expected: {seat.name} runs; seen: {program.status}"
    inside = host.namespace(seat.name).processes
    assert program.pid in inside, f"{host.name}: expected: process {program.pid} is in {seat.name}; seen: {inside}"


def test_links_have_kinds(host: LabHost, plan: Plan, host_name: str) -> None:
    planned = {tier.bridge for tier in plan.tiers_on(host_name)}
    seen = set(host.links.of_kind("bridge"))
    assert planned <= seen, f"{host_name}: expected: the bridges {planned}; seen: {seen}"


def test_rules_have_policies(stage: Stage, busy_host: str) -> None:
    chain = LabHost(stage.lab.hosts[busy_host], stage.plan).rules("FORWARD")
    assert (chain.exists, chain.policy) == (True, "DROP"), f"{busy_host}: expected: FORWARD drops; seen: {chain.policy}"
    assert chain.lines, f"{busy_host}: expected: rules in FORWARD; seen: none"
