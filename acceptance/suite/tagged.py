"""Whether a packet that is denied arrives when a VLAN tag stands before it (provision/resources/tagged.py)."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from acceptance.kernel import Link
from acceptance.raw import End, datagram, sending
from acceptance.suite.stage import Seat, Stage
from acceptance.traffic import Listener

#: EtherTypes of tags (IEEE 802.1Q, 802.1ad), one after the other.
TAGS = ((), (0x8100,), (0x88A8,), (0x8100, 0x8100), (0x88A8, 0x8100))
#: Source ports by which packets are told apart: those of the control, and those that are denied.
_GOOD, _BAD = 40000, 50000


def inner(stage: Stage, seat: Seat) -> Link:
    """Return the link that carries a replica's address, as its own kernel shows it."""
    links = stage.inside(seat).links.values()
    return next(link for link in links if any(item.ip == seat.address for item in link.addresses))


def neighbours(stage: Stage) -> Iterator[tuple[Seat, Seat]]:
    """Yield, for each bridge with two replicas, two of them: who sends, and to whom."""
    found: dict[tuple[str, str], Seat] = {}
    for seat in stage.seats():
        place = (seat.host, seat.tier.bridge)
        if place in found and found[place] is not None:
            yield found[place], seat
        found.setdefault(place, seat)


def arrived(stage: Stage, source: Seat, target: Seat) -> tuple[set[int], set[int]]:
    """Send UDP, which is denied, to a neighbour with each of TAGS before it; return which of them arrived.

    First from the bridge of the host, which no rule stands before, then from the replica itself.
    """
    prober, links = stage.prober(target.host), {seat: inner(stage, seat) for seat in (source, target)}
    with prober.listening([Listener("udp", target.space)]) as found:
        to = End(links[target].mac, target.address, found.ports[0])

        def frames(first: int, address: IPv4Address) -> list[bytes]:
            ends = (End(links[source].mac, address, first + number) for number in range(len(TAGS)))
            return [datagram(end, to, b"?", tags) for end, tags in zip(ends, TAGS, strict=True)]

        machine = stage.machine(target)
        machine.run(sending(target.tier.bridge, frames(_GOOD, source.address)))
        machine.run([*stage.enter(source), *sending(links[source].name, frames(_BAD, source.address))])
    ports = {int(peer.rpartition(":")[2]) for peer in found.seen[0]}
    numbers = range(len(TAGS))
    return {n for n in numbers if _GOOD + n in ports}, {n for n in numbers if _BAD + n in ports}


def assert_no_way(stage: Stage, source: Seat, target: Seat) -> None:
    """Fail unless a tag helps nobody, though whoever gets such a packet takes it."""
    control, came = arrived(stage, source, target)
    everyone = set(range(len(TAGS)))
    assert control == everyone, f"{target.name}: expected: it takes packets with each of {TAGS}; seen: {control}"
    shown = [TAGS[number] for number in sorted(came)]
    assert not came, f"{source.name} to {target.name}: expected: nothing arrives; seen: with these tags: {shown}"
