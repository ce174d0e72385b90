"""The rules of a plan, and of plans that publish and let out more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from tests.plans import shop
from tests.provision.filtering import Packet, matches, options, rules, verdict
from tests.provision.plans import FACTS, PHASE1, phases, split, table
from underlay.topology import Plan

_WORLD = IPv4Address("203.0.113.9")  # RFC 5737
_DNAT = frozenset({"NEW", "DNAT"})


@pytest.fixture(scope="module")
def plan() -> Plan:
    return shop.plan()


def three_edges() -> Plan:
    return shop.plan(("program: nginx, port: 80, first: 10", "program: nginx, port: 80, first: 10, replicas: 3"))


def forwarded(plan: Plan, packet: Packet, host: str = "host1") -> str:
    return verdict(table(phases(plan)[host], "filter"), PHASE1, "FORWARD", packet)


def chain(plan: Plan, name: str, table_name: str = "nat", host: str = "host1") -> tuple[str, ...]:
    (found,) = [item.rules for item in table(phases(plan)[host], table_name).chains if item.name == f"PHASE1-{name}"]
    return found


def test_connections_to_a_published_port_are_spread_evenly() -> None:
    plan = three_edges()
    targets = chain(plan, "TARGET")
    assert len(targets) == 3
    for rule in targets:
        assert options(rule)["-p"] == "tcp"
        assert options(rule)["--dport"] == "8080"
    counters = [0, 0, 0]
    chosen: Counter[str] = Counter()
    for _ in range(60):
        # xt_statistic, mode nth: each rule counts what reaches it, and takes the packet at which the count begins anew.
        for number, rule in enumerate(targets):
            words = options(rule)
            every = int(words.get("--every", "1"))
            counters[number] += 1
            if (counters[number] - 1) % every == int(words.get("--packet", "0")):
                chosen[words["--to-destination"]] += 1
                break
    assert chosen == {f"10.77.1.{last}:80": 20 for last in (10, 11, 12)}


def test_published_replicas_are_reached_by_way_of_the_published_port_only() -> None:
    plan = three_edges()
    for replica in plan.service("edge").replicas:
        through = Packet(_WORLD, replica.ip, FACTS.underlay_link, "br-frontend", 80, states=_DNAT, original_port=8080)
        assert forwarded(plan, through) == "ACCEPT"
        assert forwarded(plan, replace(through, original_port=8081)) != "ACCEPT"
        assert forwarded(plan, replace(through, states=frozenset({"NEW"}), original_port=0)) != "ACCEPT"
    inner = plan.service("gateway").replicas[0].ip
    assert (
        forwarded(
            plan, Packet(_WORLD, inner, FACTS.underlay_link, "br-frontend", 3000, states=_DNAT, original_port=8080)
        )
        != "ACCEPT"
    )


def test_own_connections_to_the_published_port_come_back_through_the_host() -> None:
    plan = three_edges()
    for replica in plan.service("edge").replicas:
        for source in (IPv4Address("127.0.0.1"), plan.service("gateway").replicas[0].ip):
            packet = Packet(source, replica.ip, "", "br-frontend", 80, states=_DNAT, original_port=8080)
            assert leaves(plan, packet) == "MASQUERADE"
            assert leaves(plan, replace(packet, states=frozenset({"NEW"}), port=3000)) == "RETURN"
        # A visitor from outside is seen with its own address.
        visitor = Packet(_WORLD, replica.ip, FACTS.underlay_link, "br-frontend", 80, states=_DNAT, original_port=8080)
        assert leaves(plan, visitor) == "RETURN"


def leaves(plan: Plan, packet: Packet) -> str:
    return next((options(rule)["-j"] for rule in chain(plan, "LEAVE") if matches(rule, packet)), "ACCEPT")


def test_only_services_with_egress_reach_the_world(plan: Plan) -> None:
    for service, replica in plan.replicas():
        packet = Packet(replica.ip, _WORLD, plan.tier(service.tier).bridge, FACTS.underlay_link, 443)
        assert (forwarded(plan, packet) == "ACCEPT") is service.egress
        assert (forwarded(plan, replace(packet, protocol="udp", port=53)) == "ACCEPT") is service.egress
        assert leaves(plan, packet) == "MASQUERADE"


def test_world_reaches_no_replica(plan: Plan) -> None:
    for service, replica in plan.replicas():
        packet = Packet(_WORLD, replica.ip, FACTS.underlay_link, plan.tier(service.tier).bridge, service.port)
        assert forwarded(plan, packet) != "ACCEPT"


def test_answers_pass(plan: Plan) -> None:
    edge, gateway = plan.service("edge").replicas[0], plan.service("gateway").replicas[0]
    answer = Packet(gateway.ip, edge.ip, "br-frontend", "br-frontend", 40000, states=frozenset({"ESTABLISHED"}))
    assert forwarded(plan, answer) == "ACCEPT"
    assert forwarded(plan, replace(answer, states=frozenset({"NEW"}))) != "ACCEPT"


def test_what_has_nothing_to_do_with_us_is_dropped_by_the_policy(plan: Plan) -> None:
    made = table(phases(plan)["host1"], "filter")
    assert dict(made.policies) == {"FORWARD": "DROP"}
    assert forwarded(plan, Packet(_WORLD, _WORLD, "eth0", "eth1", 80)) == "DROP"


def test_host_is_reached_for_names_only(plan: Plan) -> None:
    guard = table(phases(plan)["host1"], "filter")
    for service, replica in plan.replicas():
        tier = plan.tier(service.tier)
        question = Packet(replica.ip, tier.gateway.ip, tier.bridge, "", 53, "udp")
        assert verdict(guard, PHASE1, "INPUT", question) == "ACCEPT"
        assert verdict(guard, PHASE1, "INPUT", replace(question, protocol="tcp")) == "ACCEPT"
        for other in (
            replace(question, port=22, protocol="tcp"),
            replace(question, target=plan.host("host1").address.ip),
            replace(question, target=next(item.gateway.ip for item in plan.tiers if item is not tier)),
        ):
            assert verdict(guard, PHASE1, "INPUT", other) in {"DROP", "REJECT"}
    elsewhere = Packet(_WORLD, plan.host("host1").address.ip, FACTS.underlay_link, "", 22)
    assert verdict(guard, PHASE1, "INPUT", elsewhere) == "ACCEPT", "what does not come from a tier is not our business"


def test_refused_connections_are_told_and_other_packets_dropped(plan: Plan) -> None:
    edge, redis = plan.service("edge").replicas[0], plan.service("redis").replicas[0]
    packet = Packet(edge.ip, redis.ip, "br-frontend", "br-data", 6379)
    assert forwarded(plan, packet) == "REJECT"
    assert forwarded(plan, replace(packet, protocol="udp")) == "DROP"
    assert chain(plan, "DENY", "filter")[0].endswith("--reject-with tcp-reset")


def test_published_port_of_a_host_is_that_hosts_affair() -> None:
    plan = split()
    assert chain(plan, "TARGET", host="host2") == ()
    assert all("8080" not in rule for _, rule in all_rules(plan, "host2"))


def all_rules(plan: Plan, host: str) -> Iterator[tuple[str, str]]:
    for name in ("filter", "nat"):
        yield from rules(table(phases(plan)[host], name))


def test_service_without_egress_keeps_out_of_the_published_port(plan: Plan) -> None:
    """Its packets are not rewritten, so they meet the guard of the host."""
    host = plan.host("host1").address.ip
    nat = table(phases(plan)["host1"], "nat")
    for service, replica in plan.replicas():
        packet = Packet(replica.ip, host, plan.tier(service.tier).bridge, "", 8080, to_host=True)
        assert (verdict(nat, PHASE1, "PREROUTING", packet) == "DNAT") is service.egress
    assert verdict(nat, PHASE1, "PREROUTING", Packet(_WORLD, host, "eth0", "", 8080, to_host=True)) == "DNAT"
    assert verdict(nat, PHASE1, "OUTPUT", Packet(host, host, "", "lo", 8080, to_host=True)) == "DNAT"
    assert verdict(nat, PHASE1, "PREROUTING", Packet(_WORLD, host, "eth0", "", 8080)) == "ACCEPT"
