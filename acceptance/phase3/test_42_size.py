"""How large a packet may be in the tunnel, and that much of it arrives as it was sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from acceptance.modules import LabHost
from acceptance.phase3.stage import ByTunnel
from acceptance.provisioning import provision
from acceptance.suite.stage import Seat
from acceptance.traffic import Listener
from underlay.hosts.base import Host
from underlay.topology.tunnel import BRIDGE, DEVICE

#: Bytes of the headers of IPv4 and ICMP.
_HEADERS = 28
#: What 100 MB are, and a little more, in MiB.
_MEBIBYTES = 100
#: Counters of IP that rise when a packet is cut into pieces or put together again (RFC 4293).
_CUT = ("IpFragCreates", "IpFragOKs", "IpReasmReqds")


def _cut(host: LabHost) -> Mapping[str, int]:
    """Return a host's counters of fragments."""
    said = json.loads(host.check_output("nstat --json --zeros --ignore --noupdate"))["kernel"]
    return {name: said[name] for name in _CUT}


def test_packet_of_the_tunnels_size_passes_whole(
    tunnel: ByTunnel, caller: Seat, called: Seat, ends: Mapping[str, LabHost]
) -> None:
    port, before = called.service.port, {name: _cut(end) for name, end in ends.items()}
    with tunnel.prober(called.host).listening([Listener("echo", called.space, port=port)]):
        outcome = tunnel.prober(caller.host).one(caller.attempt("echo", called.address, port))
    outcome.assert_connected()
    size = str(tunnel.stretched.mtu)
    assert outcome.reply_text == size, f"expected: packets of {size} bytes both ways; seen: {outcome.reply_text}"
    for name, end in ends.items():
        after = _cut(end)
        assert after == before[name], f"{name}: expected: no fragments, {before[name]}; seen: {after}"


def test_one_byte_more_is_refused(tunnel: ByTunnel, caller: Seat, called: Seat) -> None:
    """By the sender's own kernel, which says why; of the right size it says nothing, and the guard drops the ping."""
    place, size = tunnel.inside(caller), tunnel.stretched.mtu - _HEADERS
    ping = "ping -c 1 -W 1 -M do -s %s %s"
    fits = place.run(ping, str(size), str(called.address))
    assert "too long" not in fits.stderr, f"{caller.name}: expected: {size} bytes fit; seen: {fits.stderr}"
    over = place.run(ping, str(size + 1), str(called.address))
    assert over.rc == 1, f"{caller.name}: expected: refused; seen: exit {over.rc}: {over.stdout}"
    assert "Message too long" in over.stderr, f"{caller.name}: expected: EMSGSIZE; seen: {over.stderr}{over.stdout}"


def _carry(tunnel: ByTunnel, caller: Seat, called: Seat, mebibytes: int) -> tuple[dict[str, object], dict[str, object]]:
    """Have one send much to the other; return what it gave, and what the other took."""
    seconds = tunnel.machine(called).timeouts.ready

    def carry(host: Host, seat: Seat, pieces: int) -> dict[str, object]:
        request = {
            "namespace": seat.space,
            "address": str(called.address),
            "port": called.service.port,
            "seconds": seconds,
            "pieces": pieces,
        }
        done = host.run(["python3", "-m", "acceptance.bulk"], stdin=json.dumps(request), timeout=2 * seconds)
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(carry, tunnel.machine(called), called, 0)
        return carry(tunnel.machine(caller), caller, mebibytes), taking.result()


def test_much_arrives_as_it_was_sent(tunnel: ByTunnel, caller: Seat, called: Seat) -> None:
    gave, took = _carry(tunnel, caller, called, _MEBIBYTES)
    assert gave["bytes"] == _MEBIBYTES << 20, f"expected: {_MEBIBYTES} MiB; seen: {gave}"
    assert took == gave, f"{called.name}: expected: what {caller.name} sent, {gave}; seen: {took}"


@pytest.fixture
def as_large_as_the_wire(tunnel: ByTunnel, ends: Mapping[str, LabHost]) -> Iterator[int]:
    """Have all links but the tunnel's own promise packets of the underlay's size, as those of containers do."""
    size = tunnel.plan.underlay.mtu
    try:
        for name, end in ends.items():
            names = [*sorted(tunnel.stretched.links(name) - {BRIDGE, DEVICE}), BRIDGE]
            end.machine.run(["sh", "-e", "-c", "\n".join(f"ip link set {link} mtu {size}" for link in names)])
            for seat in tunnel.seats(name):
                tunnel.inside(seat).run_expect([0], "ip link set %s mtu %s", tunnel.inner(seat).name, str(size))
        yield size
    finally:
        for end in ends.values():
            made = provision(end.machine, "converge", tunnel.phase)
            assert made.exit_code == 0, f"{end.name}: expected: mended; seen: {made}"


@pytest.mark.rebuilds
def test_who_sends_too_much_is_told(tunnel: ByTunnel, caller: Seat, called: Seat, as_large_as_the_wire: int) -> None:
    """Rules that see bridged frames make a router of a bridge in this, too: it says what fits (br_netfilter)."""
    gave, took = _carry(tunnel, caller, called, 1)
    assert took == gave, f"{called.name}: expected: what {caller.name} sent, {gave}; seen: {took}"
    known = json.loads(tunnel.inside(caller).check_output("ip -json route get %s", str(called.address)))
    seen = [metric.get("mtu") for entry in known for metric in entry.get("metrics", [])]
    assert seen == [tunnel.stretched.mtu], (
        f"{caller.name}: expected: it has learnt that {tunnel.stretched.mtu} of {as_large_as_the_wire} bytes fit; "
        f"seen: {known}"
    )
