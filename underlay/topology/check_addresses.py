"""Checks of the plan's addresses: which ranges may not meet, and which address belongs where."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import islice

from underlay.topology.derive import first_numbers, gateway_of
from underlay.topology.draft import NEXT_FREE, Draft, ServiceDraft
from underlay.topology.notes import Marked, Notes, join

#: What Docker takes for its networks unless told otherwise (moby, daemon/libnetwork/ipamutils).
_DOCKER_DEFAULT = (
    IPv4Network("172.17.0.0/16"),
    IPv4Network("172.18.0.0/16"),
    IPv4Network("172.19.0.0/16"),
    IPv4Network("172.20.0.0/14"),
    IPv4Network("172.24.0.0/14"),
    IPv4Network("172.28.0.0/14"),
    IPv4Network("192.168.0.0/16"),
)

#: Ranges that no interface of a lab can use (RFC 6890; RFC 5771 for multicast).
_UNUSABLE = {
    IPv4Network("0.0.0.0/8"): "this network",
    IPv4Network("127.0.0.0/8"): "loopback",
    IPv4Network("169.254.0.0/16"): "link-local addresses",
    IPv4Network("224.0.0.0/4"): "multicast",
    IPv4Network("240.0.0.0/4"): "future use",
}

_CHOOSE = "choose a range that is free, for example within 10.77.0.0/16"


def check_addresses(notes: Notes, draft: Draft) -> None:
    """Note every mistake in the plan's subnets and addresses."""
    _check_ranges(notes, draft)
    _check_overlaps(notes, draft)
    _check_underlay(notes, draft)
    _check_tunnel(notes, draft)
    _check_replicas(notes, draft)


def _inner(draft: Draft) -> list[tuple[str, Marked[IPv4Network]]]:
    """Return place and value of the subnets that containers stand in, those that could be read."""
    listed = [(join("tiers", tier.name.value) + ".subnet", tier.subnet) for tier in draft.tiers or ()]
    listed.append(("tunnel.subnet", draft.tunnel.subnet))
    return [(place, subnet) for place, subnet in listed if subnet is not None]


def _every(draft: Draft) -> list[tuple[str, Marked[IPv4Network]]]:
    """Return place and value of every subnet that could be read."""
    pools = [("pools.docker", draft.pools.docker), ("pools.swarm", draft.pools.swarm)]
    listed = [("underlay.subnet", draft.underlay.subnet), *pools]
    return [*_inner(draft), *((place, subnet) for place, subnet in listed if subnet is not None)]


def _check_ranges(notes: Notes, draft: Draft) -> None:
    for place, subnet in _inner(draft):
        for pool in _DOCKER_DEFAULT:
            if subnet.value.overlaps(pool):
                what = f"{place} {subnet.value} overlaps {pool}, which Docker takes for its own networks by default"
                notes.add(subnet.line, what, _CHOOSE)
                break
    for place, subnet in _every(draft):
        for unusable, purpose in _UNUSABLE.items():
            if subnet.value.overlaps(unusable):
                what = f"{place} {subnet.value} overlaps {unusable}, which is set aside for {purpose}"
                notes.add(subnet.line, what, _CHOOSE)


def _check_overlaps(notes: Notes, draft: Draft) -> None:
    known = sorted(_every(draft), key=lambda entry: entry[1].value.network_address)
    for at, (place, subnet) in enumerate(known):
        last = subnet.value.broadcast_address
        for neighbour in islice(known, at + 1, None):
            if neighbour[1].value.network_address > last:
                break
            (earlier, there), (later, here) = sorted(((place, subnet), neighbour), key=lambda entry: entry[1].line)
            what = f"{later} {here.value} overlaps {earlier} {there.value} (line {there.line})"
            notes.add(here.line, what, _CHOOSE)


def _check_underlay(notes: Notes, draft: Draft) -> None:
    subnet = draft.underlay.subnet
    listed = [("underlay.gateway", draft.underlay.gateway)]
    listed += [(join("hosts", host.name.value) + ".address", host.address) for host in draft.hosts or ()]
    seen: dict[IPv4Address, tuple[str, int]] = {}
    for place, address in listed:
        if address is None:
            continue
        if subnet is not None:
            _check_in_underlay(notes, place, address, subnet.value)
        if address.value in seen:
            owner, line = seen[address.value]
            notes.add(
                address.line, f"{place} {address.value} is already {owner} (line {line})", "choose another address"
            )
        seen.setdefault(address.value, (place, address.line))


def _check_in_underlay(notes: Notes, place: str, address: Marked[IPv4Address], subnet: IPv4Network) -> None:
    usable = f"{subnet.network_address + 1} to {subnet.broadcast_address - 1}"
    if address.value not in subnet:
        what = f"{place} {address.value} is outside of the underlay {subnet}"
    elif address.value == subnet.network_address:
        what = f"{place} {address.value} is the network's own address in the underlay {subnet}"
    elif address.value == subnet.broadcast_address:
        what = f"{place} {address.value} is the broadcast address of the underlay {subnet}"
    else:
        return
    notes.add(address.line, what, f"choose one from {usable}")


def _check_tunnel(notes: Notes, draft: Draft) -> None:
    subnet, hosts = draft.tunnel.subnet, len(draft.hosts or ())
    if subnet is not None and _last_number(subnet.value) < hosts:
        what = (
            f"tunnel.subnet {subnet.value} has {_last_number(subnet.value)} addresses; expected one for each of {hosts}"
        )
        notes.add(subnet.line, f"{what} hosts", "give it a shorter prefix")


def _check_replicas(notes: Notes, draft: Draft) -> None:
    subnets = {tier.name.value: tier.subnet.value for tier in draft.tiers or () if tier.subnet is not None}
    services = draft.services or ()
    firsts = first_numbers(services)
    seen: dict[str, list[tuple[ServiceDraft, range]]] = {}
    for service in services:
        if service.name.value not in firsts or not (service.tier and service.first and service.replicas):
            continue
        tier, first = service.tier.value, firsts[service.name.value]
        numbers = range(first, first + service.replicas.value)
        if tier in subnets:
            _check_numbers(notes, service, service.first, numbers, tier, subnets[tier])
        line = service.name.line if service.first.value == NEXT_FREE else service.first.line
        for other, taken in seen.get(tier, ()):
            if numbers.start < taken.stop and taken.start < numbers.stop:
                what = f"{join('services', service.name.value)} has the host numbers {_span(numbers)} in tier {tier}"
                owner = f"{join('services', other.name.value)} (line {other.name.line}) has {_span(taken)}"
                notes.add(line, f"{what}, but {owner}", f"begin at {taken.stop}, or leave `first` out")
        seen.setdefault(tier, []).append((service, numbers))


def _check_numbers(
    notes: Notes, service: ServiceDraft, first: Marked[int], numbers: range, tier: str, subnet: IPv4Network
) -> None:
    place = join("services", service.name.value)
    last = _last_number(subnet)
    room = f"tier {tier} ({subnet}) has 2 to {last} for replicas"
    if first.value == NEXT_FREE:
        if numbers[-1] > last:
            what = f"{place}: the next free host numbers would be {_span(numbers)}, but {room}"
            notes.add(service.name.line, what, "give the tier a larger subnet, or the service a `first`")
    elif numbers.start == 1:
        notes.add(
            first.line, f"{place}.first is 1, but {gateway_of(subnet).ip} is the gateway of tier {tier}", f"{room}"
        )
    elif numbers.start > last:
        notes.add(first.line, f"{place}.first is {numbers.start}, but {room}", "choose one of these")
    elif numbers[-1] > last:
        what = f"{place}: its {len(numbers)} replicas have the host numbers {_span(numbers)}, but {room}"
        notes.add(first.line, what, "begin lower, take fewer replicas, or give the tier a larger subnet")


def _last_number(subnet: IPv4Network) -> int:
    return subnet.num_addresses - 2


def _span(numbers: range) -> str:
    return f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}"
