"""Phase 2 of the tests' plan: its resources in order, the script that says the same, and the file for Compose.

The files in golden/ are written anew with UNDERLAY_GOLDEN=write in the environment; read the difference before
committing it.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml

from provision import phase2
from provision.explain import explain
from provision.phase2.facts import Facts, Image
from provision.resource import Feed, Phase, Write
from provision.resources.file import TextFile
from tests.plans import shop
from tests.provision.filtering import Packet, verdict
from tests.provision.plans import as_on_a_host, split, table
from tests.topology.golden import compare
from underlay.process import run
from underlay.topology import Plan, in_containers

GOLDEN = Path(__file__).parent / "golden"
MARK = phase2.MARK
_NAMES = ("gateway", "product", "order", "edge", "cache", "database")
#: What a host answers when it is asked, the same on every machine that runs these tests.
FACTS = Facts(
    {name: Image(f"underlay/{name}", f"sha256:{number:064x}", 10001 + number) for number, name in enumerate(_NAMES)}
)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return shop.plan()


def built(plan: Plan, host: str = "host1") -> Phase:
    return phase2.build(plan, host, FACTS)


def project(phase: Phase) -> str:
    (file,) = [item for item in phase.resources if isinstance(item, TextFile) and item.path.name == "compose.yaml"]
    return file.text


def test_resources_of_a_plan(plan: Plan) -> None:
    lines = []
    for section in built(plan).sections:
        lines += [section.title, *(f"    {item.identity}" for item in section.resources)]
    compare(GOLDEN / "phase2-resources.txt", "\n".join([*lines, ""]))


def test_script_of_a_plan(plan: Plan) -> None:
    text = as_on_a_host(explain(built(plan), "host1"))
    compare(GOLDEN / "phase2-explain.sh", text)
    assert run(("sh", "-n"), stdin=text, timeout=10).stderr == ""


def test_file_for_compose(plan: Plan) -> None:
    compare(GOLDEN / "phase2-compose.yaml", project(built(plan)))


def test_file_for_compose_is_yaml_that_says_what_is_planned(plan: Plan) -> None:
    said = yaml.safe_load(project(built(plan)))
    containers = in_containers(plan)
    assert set(said["services"]) == {item.name for _, item in plan.replicas()}
    for service, item in containers.plan.replicas():
        here = said["services"][item.name]
        assert here["networks"][service.tier]["ipv4_address"] == str(item.ip)
        assert service.name in here["networks"][service.tier]["aliases"]
        assert here["read_only"] is True
        assert here["cap_drop"] == ["ALL"]
        assert here["image"].startswith("host1:5000/underlay/")
        assert "@sha256:" in here["image"]
    assert {name for name, network in said["networks"].items() if network.get("internal")} == {"data"}


def test_dollar_signs_stay_what_they_are() -> None:
    """Compose has its own use for them."""
    from provision.phase2.compose import _word

    assert _word("a$b") == '"a$$b"'


def test_other_hosts_have_nothing_to_do(plan: Plan) -> None:
    assert built(plan, "host2").resources == ()


def test_all_containers_are_on_the_host_that_publishes_the_shop() -> None:
    phase = built(split())
    names = {item.identity for item in phase.resources if item.identity.startswith("container ")}
    assert names == {f"container {item.name}" for _, item in split().replicas()}


def test_script_holds_no_password(plan: Plan) -> None:
    for item in built(plan).resources:
        if "/secrets/" in item.identity or item.identity.endswith("host.key"):
            assert not any(isinstance(step, Write | Feed) for step in item.say(MARK))
    assert set(re.findall(r"\w*PASSWORD\w*: \"(\S+)\"", project(built(plan)))) == {"/run/secrets/password"}


@pytest.mark.parametrize("name", ["filter", "security"])
def test_guard_lets_the_plans_flows_pass_and_nothing_else(plan: Plan, name: str) -> None:
    containers, made = in_containers(plan), table(built(plan), name)
    hook = "DOCKER-USER" if name == "filter" else "FORWARD"
    for source_service, source in containers.plan.replicas():
        for at in containers.attachments[source.name]:
            for service, target in containers.plan.replicas():
                if target == source:
                    continue
                bridges = {tier.name: tier.bridge for tier in containers.plan.tiers}
                packet = Packet(at.address.ip, target.ip, bridges[at.tier], bridges[service.tier], service.port)
                allowed = plan.allows(source_service.name, service.name) and at.tier == service.tier
                seen = verdict(made, MARK, hook, packet)
                assert (seen == "ACCEPT") is allowed, f"{source.name} {at.address} to {target.name}: {seen}"


@pytest.mark.parametrize("name", ["filter", "security"])
def test_who_may_go_out_does_not_come_into_another_phase(plan: Plan, name: str) -> None:
    containers, made = in_containers(plan), table(built(plan), name)
    hook = "DOCKER-USER" if name == "filter" else "FORWARD"
    gateway = containers.plan.service("gateway").replicas[0]
    for service, target in plan.replicas():
        packet = Packet(gateway.ip, target.ip, "p2-frontend", plan.tier(service.tier).bridge, service.port)
        assert verdict(made, MARK, hook, packet) != "ACCEPT"
    world = Packet(gateway.ip, IPv4Address("203.0.113.9"), "p2-frontend", "eth1", 443)
    assert verdict(made, MARK, hook, world) == "ACCEPT"
