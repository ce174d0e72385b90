"""Every namespace, link, address and route is as planned, and nothing more is there."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from acceptance.conftest import Snapshots
from acceptance.kernel import Link, Place, Snapshot, of_docker
from acceptance.modules import LabHost
from acceptance.suite.stage import Seat, Stage
from underlay.topology import Plan, Tier, across

#: Takes a TCP port, and says by a word what came of it.
_TAKE = """
import socket, sys
try:
    socket.create_server(("", int(sys.argv[1]))).close()
except PermissionError:
    print("refused")
else:
    print("taken")
"""
_LOOPBACK = IPv4Interface("127.0.0.1/8")
_ANYWHERE = IPv4Network("0.0.0.0/0")
#: The policy rules that every network namespace has from the start (ip-rule(8)).
_POLICY = ("0 all local", "32766 all main", "32767 all default")


def _only_link(place: Place) -> Link:
    others = [link for link in place.links.values() if link.name != "lo"]
    assert [link.kind for link in others] == ["veth"], (
        f"{place.name}: expected: lo and one veth; seen: {', '.join(f'{link.name} ({link.kind})' for link in others)}"
    )
    return others[0]


def _state(snapshots: Snapshots, seat: Seat) -> tuple[Snapshot, Place]:
    state = snapshots[seat.host]
    name = seat.replica.namespace
    assert name in state.namespaces, f"{state.host}: expected: a namespace {name}; seen: {sorted(state.namespaces)}"
    return state, state.namespaces[name]


def test_namespaces_are_exactly_the_planned_ones(snapshots: Snapshots, plan: Plan, host_name: str) -> None:
    planned = {item.namespace for service in plan.services_on(host_name) for item in service.replicas}
    seen = set(snapshots[host_name].namespaces) - across(plan).namespaces(host_name)
    assert seen == planned, f"{host_name}: missing: {planned - seen}, not planned: {seen - planned}"


def test_bridges_and_veths_are_exactly_the_planned_ones(snapshots: Snapshots, plan: Plan, host_name: str) -> None:
    root = snapshots[host_name].root
    wire = root.with_address(plan.host(host_name).address.ip)
    planned = {tier.bridge: "bridge" for tier in plan.tiers_on(host_name)}
    planned |= {item.link: "veth" for service in plan.services_on(host_name) for item in service.replicas}
    seen = {
        link.name: link.kind
        for link in root.links.values()
        if link.kind not in {"loopback", "ether"} and link.name != wire.name and not of_docker(link)
        if link.name not in across(plan).links(host_name)
    }
    assert seen == planned, f"{host_name}: expected {planned}; seen: {seen}"


def test_tier_bridge(snapshots: Snapshots, plan: Plan, tier: Tier) -> None:
    state = snapshots[str(tier.host)]
    bridge = state.root.links[tier.bridge]
    where = f"{state.host}, {tier.bridge}"
    assert bridge.up, f"{where}: expected: up; seen: {bridge}"
    assert bridge.mtu == plan.underlay.mtu, f"{where}: expected: mtu {plan.underlay.mtu}; seen: {bridge.mtu}"
    assert bridge.addresses == (tier.gateway,), f"{where}: expected: {tier.gateway} alone; seen: {bridge.addresses}"
    assert bridge.addresses6 == (), f"{where}: expected: no IPv6; seen: {bridge.addresses6}"
    planned = {item.link for service in plan.services if service.tier == tier.name for item in service.replicas}
    ports = {link.name for link in state.root.links.values() if link.master == tier.bridge}
    assert ports == planned, f"{where}: expected the ports {planned}; seen: {ports}"


def test_loopback_is_routed_for_a_published_tier_alone(stage: Stage, plan: Plan, tier: Tier) -> None:
    """127.0.0.1 of a host leads to a published port by that (ip-sysctl, route_localnet); nobody else needs it."""
    host = LabHost(stage.lab.hosts[str(tier.host)], plan)
    wanted = int(any(plan.service(entry.service).tier == tier.name for entry in plan.published))
    seen = host.sysctl(f"net.ipv4.conf.{tier.bridge}.route_localnet")
    assert seen == wanted, f"{host.name}, {tier.bridge}: expected: route_localnet {wanted}; seen: {seen}"


def test_tier_route(snapshots: Snapshots, plan: Plan, tier: Tier, host_name: str) -> None:
    state = snapshots[host_name]
    planned: list[tuple[IPv4Network, IPv4Address | None, str]] = []
    if not plan.services_on(host_name):
        pass
    elif tier.host == host_name:
        planned = [(tier.subnet, None, tier.bridge)]
    else:
        wire = state.root.with_address(plan.host(host_name).address.ip)
        planned = [(tier.subnet, plan.host(str(tier.host)).address.ip, wire.name)]
    seen = [
        (route.destination, route.via, route.link)
        for route in state.root.routes
        if route.destination != _ANYWHERE and route.destination.overlaps(tier.subnet)
    ]
    assert seen == planned, f"{host_name}: expected the routes {planned}; seen: {seen}"


def test_link_of_replica(snapshots: Snapshots, plan: Plan, seat: Seat) -> None:
    state, place = _state(snapshots, seat)
    where = f"{state.host}, {seat.replica.link}"
    outer, inner = state.root.links[seat.replica.link], _only_link(place)
    assert outer.kind == "veth", f"{where}: expected: a veth; seen: {outer.kind}"
    assert outer.master == seat.tier.bridge, f"{where}: expected: a port of {seat.tier.bridge}; seen: {outer.master}"
    peer = state.peer(outer)
    assert peer == (place.name, inner), f"{where}: expected the peer {inner.name} in {place.name}; seen: {peer}"
    assert inner.peer_index == outer.index, (
        f"{where}: expected: {place.name}/{inner.name} has link {outer.index} as its peer; seen: {inner.peer_index}"
    )
    for link in (outer, inner):
        assert link.up, f"{where}: expected: {link.name} is up; seen: {link}"
        assert link.mtu == plan.underlay.mtu, f"{where}: expected: mtu {plan.underlay.mtu}; seen: {link}"
        assert link.addresses6 == (), f"{where}: expected: no IPv6 on {link.name}; seen: {link.addresses6}"
    assert outer.addresses == (), f"{where}: expected: no address on a bridge's port; seen: {outer.addresses}"


def test_addresses_and_routes_in_namespace(snapshots: Snapshots, seat: Seat) -> None:
    state, place = _state(snapshots, seat)
    where = f"{state.host}/{place.name}"
    inner, loopback = _only_link(place), place.links["lo"]
    assert inner.addresses == (seat.replica.address,), (
        f"{where}: expected: {seat.replica.address} alone; seen: {inner.addresses}"
    )
    assert loopback.up, f"{where}: expected: loopback is up; seen: {loopback}"
    assert loopback.addresses == (_LOOPBACK,), f"{where}: expected: {_LOOPBACK} alone; seen: {loopback.addresses}"
    assert loopback.addresses6 == (), f"{where}: expected: no IPv6 on lo; seen: {loopback.addresses6}"
    planned = {(_ANYWHERE, seat.tier.gateway.ip, inner.name), (seat.tier.subnet, None, inner.name)}
    seen = {(route.destination, route.via, route.link) for route in place.routes}
    assert seen == planned, f"{where}: expected the routes {planned}; seen: {seen}"
    assert place.policy == _POLICY, f"{where}: expected: the kernel's own policy rules; seen: {place.policy}"


def test_service_may_take_no_privileged_port_below_its_own(stage: Stage, seat: Seat) -> None:
    """It may take its own port, and those that anybody may (ip_unprivileged_port_start, ip-sysctl.rst)."""
    below = min(seat.service.port, 1024) - 1
    user = ["setpriv", f"--reuid={stage.user(seat)}", f"--regid={stage.user(seat)}", "--clear-groups", "--"]
    words = [*stage.enter(seat), *user, "python3", "-c", _TAKE, str(below)]
    seen = stage.machine(seat).run(words).stdout.strip()
    assert seen == "refused", f"{seat.host}/{seat.name}: expected: port {below} is refused to its user; seen: {seen}"
