"""What the tunnel is on the wire: recorded there while somebody connects, and taken apart by the tests themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network

import pytest

from acceptance.modules import LabHost
from acceptance.phase3.frames import Frame, Wrapped, record, unwrap
from acceptance.phase3.stage import ByTunnel
from acceptance.suite.stage import Seat
from acceptance.traffic import Listener


@dataclass(frozen=True, slots=True)
class Passed:
    """What passed the wire: the frames of the tunnel, and all others."""

    wrapped: Sequence[Wrapped]
    bare: Sequence[Frame]

    def between(self, source: Seat, target: Seat) -> list[Wrapped]:
        """Return what went from one to the other."""
        ends = (source.address, target.address)
        return [item for item in self.wrapped if (item.inner.source, item.inner.target) == ends]


@pytest.fixture(scope="module")
def passed(tunnel: ByTunnel, caller: Seat, called: Seat, wires: Mapping[str, str]) -> Passed:
    """Record the wire of the caller's host while it has packets of full size echoed through the tunnel."""
    home, port = tunnel.machine(caller), called.service.port
    timeouts = tunnel.plan.timeouts
    request = {
        "do": "attempt",
        "timeout": timeouts.connect,
        "chain": None,
        "limit": timeouts.command,
        "patience": 1,
        "attempts": [asdict(caller.attempt("echo", called.address, port))],
    }
    with tunnel.prober(called.host).listening([Listener("echo", called.space, port=port)]):
        words = ["python3", "-m", "acceptance.probe"]
        seen = record(home, wires[home.name], words, json.dumps(request), seconds=timeouts.command)
    (outcome,) = json.loads(seen.output)
    assert outcome["outcome"] == "connected", f"{home.name}: expected: {called.name} echoes; seen: {outcome}"
    found = [(frame, unwrap(frame, tunnel.plan.tunnel.port)) for frame in seen.frames]
    return Passed([item for _, item in found if item], [frame for frame, item in found if not item])


def _of(frame: Frame, subnet: IPv4Network) -> bool:
    """Whether a frame is about addresses of a subnet."""
    return any(address in subnet for address in (frame.source, frame.target) if address)


def test_frames_go_between_the_ends(tunnel: ByTunnel, passed: Passed, caller: Seat, called: Seat) -> None:
    for source, target in ((caller, called), (called, caller)):
        found = passed.between(source, target)
        assert found, f"expected: frames from {source.name} to {target.name}; seen: none of {len(passed.wrapped)}"
        expected = (tunnel.stretched.endpoint(source.host), tunnel.stretched.endpoint(target.host))
        seen = {(item.outer.source, item.outer.target) for item in found}
        assert seen == {expected}, f"{source.name} to {target.name}: expected: between {expected}; seen: {seen}"


def test_frames_carry_the_planned_network(tunnel: ByTunnel, passed: Passed) -> None:
    seen = {item.vni for item in passed.wrapped if _of(item.inner, tunnel.plan.tunnel.subnet)}
    assert seen == {tunnel.plan.tunnel.vni}, f"expected: VNI {tunnel.plan.tunnel.vni} alone; seen: {seen}"


def test_inside_are_the_replicas_own_frames(
    tunnel: ByTunnel, passed: Passed, caller: Seat, called: Seat, ends: Mapping[str, LabHost]
) -> None:
    """Their own MAC addresses, unchanged: no router is between them. Outside are those of the hosts."""
    for source, target in ((caller, called), (called, caller)):
        found, expected = passed.between(source, target), (tunnel.mac(source), tunnel.mac(target))
        seen = {(item.inner.source_mac, item.inner.target_mac) for item in found}
        assert seen == {expected}, f"{source.name} to {target.name}: expected: {expected}; seen: {seen}"
        outer = {item.outer.source_mac for item in found}
        own = {link.mac for link in ends[source.host].links.values()}
        assert outer <= own, f"{source.host}: expected: sent from a link of it; seen: {outer}"
        assert all(item.inner.tcp for item in found), f"expected: TCP inside; seen: {found[0].inner}"


def test_one_connection_takes_one_way(passed: Passed, caller: Seat, called: Seat) -> None:
    """The outer source port is made of the inner connection: routers may spread those, and not mix one (RFC 7348)."""
    for source, target in ((caller, called), (called, caller)):
        seen = {item.outer.source_port for item in passed.between(source, target)}
        assert len(seen) == 1, f"{source.name} to {target.name}: expected: one for one connection; seen: {seen}"


def test_nothing_of_the_tunnel_passes_unwrapped(tunnel: ByTunnel, passed: Passed) -> None:
    subnet = tunnel.plan.tunnel.subnet
    seen = [frame for frame in passed.bare if _of(frame, subnet)]
    assert not seen, f"expected: {subnet} only inside of the tunnel; seen: {seen[:3]}"


def test_largest_packet_fills_the_underlay_and_is_whole(tunnel: ByTunnel, passed: Passed) -> None:
    largest = max(passed.wrapped, key=lambda item: item.inner.size)
    seen = (largest.inner.size, largest.outer.size)
    expected = (tunnel.stretched.mtu, tunnel.plan.underlay.mtu)
    assert seen == expected, f"expected: {expected} bytes inside and outside; seen: {seen}"
    assert largest.inner.whole, f"expected: may not be fragmented; seen: {largest.inner}"
    pieces = [frame for frame in (*passed.bare, *(item.outer for item in passed.wrapped)) if frame.fragment]
    assert not pieces, f"expected: no fragment on the wire; seen: {pieces[:3]}"
