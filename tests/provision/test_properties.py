"""What holds for phase 1 of every valid plan."""

from __future__ import annotations

import re
from collections import Counter
from itertools import permutations
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from provision.explain import explain
from provision.resource import Command, Feed, Phase, Resource, Write
from provision.resources.file import Directory, TextFile
from provision.resources.ip import Address, Route
from provision.resources.link import Bridge, Veth
from provision.resources.postgres import Cluster
from provision.resources.program import Program
from provision.resources.rules import Table
from provision.resources.secret import PasswordFile
from provision.resources.user import User
from tests.provision.filtering import BUILTIN, Packet, assert_canonical, options, rules, verdict
from tests.provision.plans import FACTS, PHASE1, phases, table
from tests.topology.strategies import plan_texts
from underlay.topology import Plan, Replica, Service, flow_pairs, parse_plan

_OURS = (Path("/etc/underlay"), Path("/run/underlay"), Path("/var/lib/underlay"))

modest = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _files(item: Resource) -> list[Path]:
    paths = [Path(step.path) for step in item.say(PHASE1) if isinstance(step, Write)]
    if isinstance(item, Directory):
        paths.append(item.path)
    return paths


def _may_be_written(path: Path, plan: Plan) -> bool:
    if any(path.is_relative_to(top) for top in _OURS):
        return True
    if path.parent == Path("/etc/supervisor/conf.d"):
        return path.suffix == ".conf"
    return path in {Path("/etc/netns", item.namespace, "resolv.conf") for _, item in plan.replicas()}


@modest
@given(plan_texts())
def test_phase_is_well_made(text: str) -> None:
    plan = parse_plan(text, "generated")
    for host, phase in phases(plan).items():
        assert bool(phase.resources) == bool(plan.services_on(host))
        every = [item for section in phase.sections for item in section.resources]
        assert_one_resource_for_an_identity(every)
        assert len({item.identity for item in phase.resources}) == len(phase.resources)
        for item in phase.resources:
            assert all(_may_be_written(path, plan) for path in _files(item))
            for step in item.say(PHASE1):
                assert not isinstance(step, Write | Feed) or "END" not in step.text.splitlines()
                assert not isinstance(step, Command) or all(step.argv)
        assert_interfaces(phase)
        assert_programs(plan, host, phase)


def assert_one_resource_for_an_identity(every: list[Resource]) -> None:
    """The same directory may be wanted twice; two different resources must not share a name, or one is lost."""
    first = {item.identity: item for item in reversed(every)}
    assert [item for item in every if first[item.identity] != item] == []


def assert_interfaces(phase: Phase) -> None:
    bridges = {item.name for item in phase.resources if isinstance(item, Bridge)}
    pairs = [item for item in phase.resources if isinstance(item, Veth)]
    names = [*bridges, *(pair.name for pair in pairs)]
    assert all(0 < len(name.encode()) <= 15 for name in [*names, *(pair.inner for pair in pairs)])
    assert len(set(names)) == len(names)
    assert all(pair.bridge in bridges for pair in pairs)
    links = {(None, FACTS.underlay_link), *((None, name) for name in names), *((p.namespace, p.inner) for p in pairs)}
    for item in phase.resources:
        if isinstance(item, Address | Route):
            assert (item.namespace, item.link) in links
    macs = [item.mac for item in phase.resources if isinstance(item, Bridge | Veth)]
    assert len(set(macs)) == len(macs)
    assert all(int(mac[:2], 16) & 0b11 == 0b10 for mac in macs), "locally administered, and not a multicast address"


def assert_programs(plan: Plan, host: str, phase: Phase) -> None:
    programs = {item.name: item for item in phase.resources if isinstance(item, Program)}
    replicas = {item.name: service for service, item in plan.replicas() if service.host == host}
    assert set(programs) == ({*replicas, "dns"} if replicas else set())
    for name, service in replicas.items():
        assert programs[name].namespace == name
        assert programs[name].user != "root"
        probe = programs[name].probe
        assert probe is not None
        assert probe.port == service.port
    users = {name: programs[name].user for name in replicas}
    made = {item.name for item in phase.resources if isinstance(item, User)}
    assert made == set(users.values())
    assert all(len(user) <= 32 for user in made)
    for item in phase.resources:
        owner = item.owner if isinstance(item, Directory | TextFile | PasswordFile) else "root"
        owner = item.user if isinstance(item, Cluster | Program) else owner
        assert owner == "root" or f"user {owner}" in item.needs, "a stranger's user is given nothing, and runs nothing"
    for name, other in permutations(replicas, 2):
        assert (users[name] == users[other]) == (replicas[name] == replicas[other]), "one user a service"


@modest
@given(plan_texts())
def test_build_gives_the_same_again(text: str) -> None:
    once, again = phases(parse_plan(text, "once")), phases(parse_plan(text, "again"))
    assert once == again
    assert [explain(phase, host) for host, phase in once.items()] == [explain(p, host) for host, p in again.items()]


@modest
@given(plan_texts())
def test_rules_are_well_made(text: str) -> None:
    plan = parse_plan(text, "generated")
    for phase in phases(plan).values():
        for made in (table(phase, "filter"), table(phase, "nat")):
            names = [chain.name for chain in made.chains]
            assert len(set(names)) == len(names)
            assert all(name.startswith(PHASE1.chain) and len(name) <= 28 for name in names)
            for _, rule in rules(made):
                assert_canonical(rule)
                assert options(rule)["-j"] in {*names, *BUILTIN}
            for jump in made.jumps:
                assert_canonical(jump.words(PHASE1))
                assert jump.target in names


@modest
@given(plan_texts())
def test_each_allowed_pair_has_its_accept_rule_and_nobody_else_has_one(text: str) -> None:
    plan = parse_plan(text, "generated")
    wanted = {(str(source.ip), str(target.ip), service.port) for source, service, target in flow_pairs(plan)}
    homes = {str(item.ip): service.host for service, item in plan.replicas()}
    for host, phase in phases(plan).items():
        seen = Counter(
            (words["-s"].removesuffix("/32"), words["-d"].removesuffix("/32"), int(words["--dport"]))
            for words in (options(rule) for _, rule in rules(table(phase, "filter")))
            if words["-j"] == "ACCEPT" and "-s" in words
        )
        assert set(seen) <= wanted
        assert set(seen.values()) <= {1}
        here = {pair for pair in wanted if host in {homes[pair[0]], homes[pair[1]]}}
        assert here <= set(seen)


def passes(plan: Plan, filters: dict[str, Table], source: Replica, target: Replica, port: int, protocol: str) -> bool:
    """Whether a new connection from one replica to another gets through every host on its way."""
    there, here = plan.service(target.service), plan.service(source.service)
    into, out_of = plan.tier(here.tier).bridge, plan.tier(there.tier).bridge
    wire = FACTS.underlay_link
    legs = [(here.host, into, out_of)]
    if here.host != there.host:
        legs = [(here.host, into, wire), (there.host, wire, out_of)]
    return all(
        verdict(filters[host], PHASE1, "FORWARD", Packet(source.ip, target.ip, incoming, outgoing, port, protocol))
        == "ACCEPT"
        for host, incoming, outgoing in legs
    )


@modest
@given(plan_texts())
def test_flow_matrix(text: str) -> None:
    plan = parse_plan(text, "generated")
    filters = {host: table(phase, "filter") for host, phase in phases(plan).items()}
    # The last replica of a service stands for all: the test above counts the rules of each.
    some: list[tuple[Service, Replica]] = [(service, service.replicas[-1]) for service in plan.services]
    some += [(service, service.replicas[0]) for service in plan.services[:1] if len(service.replicas) > 1]
    for (sender, source), (receiver, target) in permutations(some, 2):
        allowed = plan.allows(sender.name, receiver.name)
        assert passes(plan, filters, source, target, receiver.port, "tcp") is allowed
        assert not passes(plan, filters, source, target, receiver.port, "udp")
        assert not passes(plan, filters, source, target, receiver.port % 65535 + 1, "tcp")


@modest
@given(plan_texts())
def test_tiers_of_other_hosts_are_reached_by_their_underlay_address(text: str) -> None:
    plan = parse_plan(text, "generated")
    for host, phase in phases(plan).items():
        routes = {item.destination: item for item in phase.resources if isinstance(item, Route) and not item.namespace}
        others = [tier for tier in plan.tiers if tier.host not in {None, host}]
        assert set(routes) == ({tier.subnet for tier in others} if phase.resources else set())
        for tier in others if phase.resources else ():
            assert routes[tier.subnet].via == plan.host(str(tier.host)).address.ip
            assert routes[tier.subnet].link == FACTS.underlay_link


@modest
@given(plan_texts())
def test_program_configuration_stays_within_its_lines(text: str) -> None:
    """A word of the plan must not become a line or a section of supervisord's configuration."""
    plan = parse_plan(text, "generated")
    for phase in phases(plan).values():
        for item in phase.resources:
            for step in item.say(PHASE1):
                if isinstance(step, Write) and step.path.startswith("/etc/supervisor/"):
                    head, section, *lines = step.text.splitlines()
                    assert head.startswith(f"; {PHASE1.text}")
                    assert re.fullmatch(r"\[program:[a-z0-9-]+\]", section)
                    assert all(re.match(r"[a-z_]+=\S", line) for line in lines)
