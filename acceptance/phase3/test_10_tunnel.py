"""The tunnel is made as planned: its devices, their tables, and who is written down as whose neighbour."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Address

from acceptance.modules import LabHost
from acceptance.phase3.stage import ByTunnel
from acceptance.suite.stage import Seat
from underlay.topology.tunnel import BRIDGE, DEVICE

#: The entry for all that no other entry names, and what is for everybody (bridge(8)).
_REST = "00:00:00:00:00:00"


def test_device_is_as_planned(tunnel: ByTunnel, ends: Mapping[str, LabHost]) -> None:
    planned = tunnel.plan.tunnel
    for name, end in ends.items():
        device, address = end.vxlan(DEVICE), tunnel.plan.host(name).address
        seen = (device.vni, device.port, device.local, device.learns)
        assert seen == (planned.vni, planned.port, address.ip, False), f"{name}: expected: as planned; seen: {seen}"
        carried = end.links[device.underlay].addresses
        assert address in carried, f"{name}: expected: on the link of {address}; seen: {device.underlay}, {carried}"


def test_device_and_bridge_have_room_for_what_a_tunnel_adds(tunnel: ByTunnel, ends: Mapping[str, LabHost]) -> None:
    for name, end in ends.items():
        for link in (DEVICE, BRIDGE):
            seen = end.links[link].mtu
            assert seen == tunnel.stretched.mtu, f"{name}: {link}: expected: {tunnel.stretched.mtu} bytes; seen: {seen}"
        assert end.links[DEVICE].master == BRIDGE, f"{name}: expected: a port of {BRIDGE}; seen: {end.links[DEVICE]}"


def test_forwarding_table_is_exactly_as_planned(tunnel: ByTunnel, ends: Mapping[str, LabHost]) -> None:
    """Where each MAC address of the other host is, as the kernel there has it; and one entry for all others."""
    for name, end in ends.items():
        far = tunnel.other(name)
        there = frozenset({IPv4Address(str(far.machine.address))})
        macs = {tunnel.mac(seat) for seat in tunnel.seats(far.name)} | {far.links[BRIDGE].mac, _REST}
        seen = end.vxlan(DEVICE).forwarding
        assert seen == dict.fromkeys(macs, there), f"{name}: expected: {sorted(macs)} at {there}; seen: {seen}"
        astray = end.vxlan(DEVICE).astray
        assert not astray, f"{name}: expected: each goes as the device sends; seen: {astray}"


def test_far_neighbours_are_written_down(tunnel: ByTunnel, seat: Seat) -> None:
    shown = json.loads(tunnel.inside(seat).check_output("ip -json neighbour show nud permanent"))
    far = tunnel.seats(tunnel.other(seat.host).name)
    expected = {str(other.address): tunnel.mac(other) for other in far}
    seen = {entry["dst"]: entry["lladdr"] for entry in shown}
    assert seen == expected, f"{seat.name}: expected: {expected}; seen: {seen}"


def test_near_neighbours_are_asked_for(tunnel: ByTunnel, seat: Seat) -> None:
    """On one host nothing is in the way of ARP, and nothing has to be kept."""
    near = {str(other.address) for other in tunnel.seats(seat.host) if other != seat}
    shown = json.loads(tunnel.inside(seat).check_output("ip -json neighbour show nud permanent"))
    assert not near & {entry["dst"] for entry in shown}, f"{seat.name}: expected: none of {near}; seen: {shown}"


def test_nothing_of_it_has_an_address_of_ipv6(tunnel: ByTunnel, ends: Mapping[str, LabHost]) -> None:
    """No rule guards it."""
    places = [(end, tunnel.stretched.links(name)) for name, end in ends.items()]
    places += [(place, frozenset(place.links)) for place in (tunnel.inside(seat) for seat in tunnel.seats())]
    for place, names in places:
        seen = {name: place.links[name].addresses6 for name in names if place.links[name].addresses6}
        assert not seen, f"{place.name}: expected: no address of IPv6; seen: {seen}"


def test_replica_has_its_address_and_knows_no_way_out(tunnel: ByTunnel, seat: Seat) -> None:
    place = tunnel.inside(seat)
    seen = [address for name, link in place.links.items() for address in link.addresses if name != "lo"]
    assert seen == [seat.replica.address], f"{seat.name}: expected: {seat.replica.address} alone; seen: {seen}"
    routes = [entry["dst"] for entry in json.loads(place.check_output("ip -json route show"))]
    assert routes == [str(tunnel.plan.tunnel.subnet)], f"{seat.name}: expected: its own subnet alone; seen: {routes}"


def test_bridge_has_its_address_and_ports(tunnel: ByTunnel, ends: Mapping[str, LabHost]) -> None:
    for name, end in ends.items():
        planned, links = tunnel.stretched.bridges[name], end.links
        assert links[BRIDGE].addresses == (planned,), f"{name}: expected: {planned}; seen: {links[BRIDGE].addresses}"
        ports = {link for link, state in links.items() if state.master == BRIDGE}
        expected = tunnel.stretched.links(name) - {BRIDGE}
        assert ports == expected, f"{name}: expected: the ports {sorted(expected)}; seen: {sorted(ports)}"
        down = [link for link in (BRIDGE, *ports) if not links[link].up]
        assert not down, f"{name}: expected: all up; seen: down: {down}"
