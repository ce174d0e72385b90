"""What is tried, worked out from the plan of the running lab: names for the report, and values for the tests.

A fixture of one of these names gets one case after the other. What a plan does not have gives no case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from acceptance.phase1.flows import all_pairs
from underlay.topology import Plan, Program, Published, Replica, Service, Tier

#: The programs that are given a password of the database.
WITH_PASSWORD = frozenset({Program.PRODUCT, Program.ORDER})


@dataclass(frozen=True, slots=True)
class Seat:
    """A replica, its service and its tier."""

    replica: Replica
    service: Service
    tier: Tier


@dataclass(frozen=True, slots=True)
class Visit:
    """A connection to a published port: from where, to which address, and whom the edge should see.

    ``machine`` is a host's name or "outside".
    """

    entry: Published
    machine: str
    namespace: str | None
    address: IPv4Address
    seen_as: IPv4Address

    @property
    def name(self) -> str:
        """The name in the report."""
        place = f"{self.machine}/{self.namespace}" if self.namespace else self.machine
        return f"{place}->{self.address}:{self.entry.port}"


OUTSIDE = "outside"
_LOOPBACK = IPv4Address("127.0.0.1")

Cases = Iterator[tuple[str, object]]


def seats(plan: Plan) -> Iterator[Seat]:
    """Yield every replica with what it belongs to."""
    for service, replica in plan.replicas():
        yield Seat(replica, service, plan.tier(service.tier))


def visits(plan: Plan) -> Iterator[Visit]:
    """Yield the ways to each published port, with the client's address that the edge should see."""
    for entry in plan.published:
        address, service = plan.host(entry.host).address.ip, plan.service(entry.service)
        tier = plan.tier(service.tier)
        for host in plan.hosts:
            yield Visit(entry, host.name, None, address, host.address.ip)
        yield Visit(entry, entry.host, None, _LOOPBACK, tier.gateway.ip)
        yield Visit(entry, OUTSIDE, None, address, plan.underlay.gateway.ip)
        for seat in seats(plan):
            if not seat.service.egress or seat.service == service:
                continue  # nobody promises that a service reaches itself by its own published port
            here = seat.service.host == entry.host
            near = tier.gateway.ip if seat.tier == tier else seat.replica.ip
            seen_as = near if here else plan.host(seat.service.host).address.ip
            yield Visit(entry, seat.service.host, seat.replica.namespace, address, seen_as)


def _hosts(plan: Plan) -> Cases:
    return ((host.name, host.name) for host in plan.hosts)


def _busy_hosts(plan: Plan) -> Cases:
    return ((host.name, host.name) for host in plan.hosts if plan.services_on(host.name))


def _seats(plan: Plan) -> Cases:
    return ((seat.replica.name, seat) for seat in seats(plan))


def _tiers(plan: Plan) -> Cases:
    return ((tier.name, tier) for tier in plan.tiers if tier.host)


def _pairs(plan: Plan) -> Cases:
    return ((pair.name, pair) for pair in all_pairs(plan))


def _crowded_tiers(plan: Plan) -> Cases:
    crowds = {tier.name: [seat for seat in seats(plan) if seat.tier == tier] for tier in plan.tiers}
    return ((tier.name, tier) for tier in plan.tiers if len(crowds[tier.name]) > 1)


def _egress(plan: Plan) -> Cases:
    return ((seat.replica.name, seat) for seat in seats(plan) if seat.service.egress)


def _confined(plan: Plan) -> Cases:
    return ((seat.replica.name, seat) for seat in seats(plan) if not seat.service.egress)


def _database_users(plan: Plan) -> Cases:
    return ((seat.replica.name, seat) for seat in seats(plan) if seat.service.program in WITH_PASSWORD)


def _visits(plan: Plan) -> Cases:
    return ((visit.name, visit) for visit in visits(plan))


#: By fixture: the cases of a plan.
CASES: Mapping[str, Callable[[Plan], Cases]] = {
    "host_name": _hosts,
    "busy_host": _busy_hosts,
    "seat": _seats,
    "tier": _tiers,
    "pair": _pairs,
    "crowded_tier": _crowded_tiers,
    "egress_seat": _egress,
    "confined_seat": _confined,
    "database_user": _database_users,
    "visit": _visits,
}
