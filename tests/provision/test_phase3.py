"""Phase 3 of the tests' plan: its resources in order, the script that says the same, and its rules.

The files in golden/ are written anew with UNDERLAY_GOLDEN=write in the environment; read the difference before
committing it.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from provision import phase1, phase3
from provision.explain import explain
from provision.kernel.network import Neighbour
from provision.phase3.facts import Facts
from provision.phases import definition
from provision.resource import Phase
from provision.resources.link import Bridge, Veth
from provision.resources.neighbours import EVERYBODY, Forwarding, told
from provision.resources.rules import Table
from provision.resources.tagged import Untagged
from provision.resources.vxlan import Vxlan
from tests.plans import shop
from tests.provision.filtering import Packet, verdict
from tests.provision.plans import as_on_a_host, phases, table
from tests.topology.golden import compare
from underlay.process import run
from underlay.topology import Plan, across
from underlay.topology.tunnel import BRIDGE

GOLDEN = Path(__file__).parent / "golden"
MARK = phase3.MARK
HOSTS = ("host1", "host2")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return shop.plan()


def built(plan: Plan, host: str) -> Phase:
    return phase3.build(plan, host, Facts("eth0"))


@pytest.mark.parametrize("host", HOSTS)
def test_resources_of_a_plan(plan: Plan, host: str) -> None:
    lines = []
    for section in built(plan, host).sections:
        lines += [section.title, *(f"    {item.identity}" for item in section.resources)]
    compare(GOLDEN / f"phase3-resources-{host}.txt", "\n".join([*lines, ""]))


@pytest.mark.parametrize("host", HOSTS)
def test_script_of_a_plan(plan: Plan, host: str) -> None:
    script = as_on_a_host(explain(built(plan, host), host))
    compare(GOLDEN / f"phase3-explain-{host}.sh", script)
    assert run(("sh", "-n"), stdin=script, timeout=10).stderr == ""


def test_a_plan_without_the_flow_has_no_tunnel() -> None:
    alone = shop.plan().services[0]
    plan = shop.plan()
    bare = type(plan)(**{name: getattr(plan, name) for name in plan.__slots__} | {"flows": (), "services": (alone,)})
    assert all(built(bare, host).resources == () for host in HOSTS)
    assert all(definition("phase3").claims(bare, host) == frozenset() for host in HOSTS)


def test_claims_are_names_in_the_kernel(plan: Plan) -> None:
    claims = definition("phase3").claims(plan, "host2")
    assert claims >= {"namespace p3-product-1", "link v-p3-product-1", "link p3-tunnel", "link p3-vxlan"}
    assert "namespace p3-gateway-1" not in claims
    for phase in ("phase1", "phase2"):
        assert not any(claims & definition(phase).claims(plan, host) for host in HOSTS)


def test_ends_agree_on_the_network_and_meet(plan: Plan) -> None:
    """Each sends to where the other hears, and is told of every neighbour there."""
    devices, tables = {}, {}
    for host in HOSTS:
        for item in built(plan, host).resources:
            if isinstance(item, Vxlan):
                devices[host] = item
            if isinstance(item, Forwarding):
                tables[host] = item
    assert devices["host1"].vni == devices["host2"].vni == plan.tunnel.vni
    assert devices["host1"].port == devices["host2"].port == plan.tunnel.port
    for here, there in (HOSTS, HOSTS[::-1]):
        assert {entry.address for entry in tables[here].entries} == {devices[there].local}
        assert EVERYBODY in {entry.mac for entry in tables[here].entries}
        assert len(tables[here].entries) == 4, "two replicas, the bridge, and all others"


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", ["filter", "security"])
def test_guard_lets_the_plans_flows_pass_and_nothing_else(plan: Plan, host: str, name: str) -> None:
    stretched, made = across(plan).plan, table(built(plan, host), name)
    for source_service, source in stretched.replicas():
        for service, target in stretched.replicas():
            for port in (service.port, service.port + 1):
                for protocol in ("tcp", "udp", "icmp"):
                    packet = Packet(source.ip, target.ip, BRIDGE, BRIDGE, port, protocol)
                    allowed = stretched.allows(source_service.name, service.name)
                    allowed = allowed and port == service.port and protocol == "tcp"
                    seen = verdict(made, MARK, "FORWARD", packet)
                    assert (seen == "ACCEPT") is allowed, f"{source.name} to {target.name}:{port}/{protocol}: {seen}"


@pytest.mark.parametrize("name", ["filter", "security"])
@pytest.mark.parametrize("target", ["192.168.56.11", "192.168.56.255", "10.79.1.1"])
@pytest.mark.parametrize(
    ("source", "good"), [("192.168.56.12", True), ("192.168.56.11", False), ("192.168.56.1", False)]
)
def test_only_the_other_end_may_send(plan: Plan, name: str, target: str, source: str, good: bool) -> None:
    """To whichever address: a VXLAN hears on all of them."""
    made, port = table(built(plan, "host1"), name), plan.tunnel.port
    ends = (IPv4Address(source), IPv4Address(target))
    packet = Packet(*ends, "eth0", "", port, "udp", to_host=True)
    assert (verdict(made, MARK, "INPUT", packet) == "ACCEPT") is good
    elsewhere = Packet(*ends, "eth0", "", port + 1, "udp", to_host=True)
    assert verdict(made, MARK, "INPUT", elsewhere) == "ACCEPT", "the host's other ports are not the tunnel's affair"


@pytest.mark.parametrize("name", ["filter", "security"])
def test_nobody_reaches_the_other_end_by_way_of_this_one(plan: Plan, name: str) -> None:
    """Whose packets this host forwards has its address there, and would be taken for it."""
    made, far = table(built(plan, "host1"), name), IPv4Address("192.168.56.12")
    stranger = IPv4Address("10.77.1.20")
    wrapped = Packet(stranger, far, "br-frontend", "eth0", plan.tunnel.port, "udp")
    assert verdict(made, MARK, "FORWARD", wrapped) in {"DROP", "REJECT"}
    other = Packet(stranger, far, "br-frontend", "eth0", plan.tunnel.port + 1, "udp")
    assert verdict(made, MARK, "FORWARD", other) == "ACCEPT"


@pytest.mark.parametrize("name", ["filter", "security"])
@pytest.mark.parametrize(("user", "good"), [(None, True), (0, True), (1, False), (65534, False)])
def test_on_an_end_only_root_and_the_tunnel_itself_send(plan: Plan, name: str, user: int | None, good: bool) -> None:
    ends = (IPv4Address("192.168.56.11"), IPv4Address("192.168.56.12"))
    packet = Packet(*ends, "", "eth0", plan.tunnel.port, "udp", user=user)
    assert (verdict(table(built(plan, "host1"), name), MARK, "OUTPUT", packet) == "ACCEPT") is good


@pytest.mark.parametrize("name", ["filter", "security"])
@pytest.mark.parametrize(("port", "good"), [(4789, False), (4790, True)])
def test_phases_that_let_somebody_out_close_the_tunnels_port(plan: Plan, name: str, port: int, good: bool) -> None:
    """Whether or not the tunnel is there: at boot it comes last."""
    made = table(phases(plan)["host1"], name)
    gateway, far = IPv4Address("10.77.1.20"), IPv4Address("192.168.56.12")
    packet = Packet(gateway, far, "br-frontend", "eth0", port, "udp")
    assert (verdict(made, phase1.MARK, "FORWARD", packet) == "ACCEPT") is good


@pytest.mark.parametrize("host", HOSTS)
def test_guard_comes_before_every_wire_and_goes_after_it(plan: Plan, host: str) -> None:
    made = built(plan, host).resources
    wires = [number for number, item in enumerate(made) if isinstance(item, Bridge | Veth | Vxlan)]
    guards = [number for number, item in enumerate(made) if isinstance(item, Table | Untagged)]
    assert wires
    assert len(guards) == 3
    assert max(guards) < min(wires)
    gone = [kind.finds for kind in definition("phase3").kinds]
    assert {kind for finds in gone[-2:] for kind in finds} == {Table, Untagged}


def test_tables_are_compared_by_entry() -> None:
    first, second = (
        Neighbour("02:4c:0a:4e:00:0a", IPv4Address("192.168.56.11")),
        Neighbour(EVERYBODY, IPv4Address("192.168.56.11")),
    )
    words = "sends {mac} to {address}"
    assert told(frozenset({first}), frozenset({first}), words) is None
    assert told(frozenset({first}), frozenset({second}), words) == (
        "lacks: sends 00:00:00:00:00:00 to 192.168.56.11; sends 02:4c:0a:4e:00:0a to 192.168.56.11, unplanned"
    )
    astray = Neighbour(first.mac, first.address, port=8472, vni=7)
    assert told(frozenset({astray}), frozenset(), words) == (
        "sends 02:4c:0a:4e:00:0a to 192.168.56.11 port 8472 VNI 7, unplanned"
    )
