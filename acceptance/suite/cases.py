"""What is tried, worked out from the plan of the running lab: names for the report, and values for the tests.

A fixture of one of these names gets one case after the other. What a plan does not have gives no case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from acceptance.suite.flows import all_pairs
from acceptance.suite.stage import WITH_PASSWORD, Member, members
from underlay.topology import Plan, Published


@dataclass(frozen=True, slots=True)
class Visit:
    """A connection to a published port: from where, and to which address.

    From a replica if there is a ``member``, else from a ``machine`` itself: a host's name, or "outside".
    """

    entry: Published
    machine: str
    member: Member | None
    address: IPv4Address

    @property
    def name(self) -> str:
        """The name in the report."""
        return f"{self.member.name if self.member else self.machine}->{self.address}:{self.entry.port}"


OUTSIDE = "outside"
_LOOPBACK = IPv4Address("127.0.0.1")

Cases = Iterator[tuple[str, object]]


def visits(plan: Plan) -> Iterator[Visit]:
    """Yield the ways to each published port."""
    for entry in plan.published:
        address = plan.host(entry.host).address.ip
        for host in plan.hosts:
            yield Visit(entry, host.name, None, address)
        yield Visit(entry, entry.host, None, _LOOPBACK)
        yield Visit(entry, OUTSIDE, None, address)
        for member in members(plan):
            # Nobody promises that a service reaches itself by its own published port.
            if member.service.egress and member.service.name != entry.service:
                yield Visit(entry, "", member, address)


def _hosts(plan: Plan) -> Cases:
    return ((host.name, host.name) for host in plan.hosts)


def _busy_hosts(plan: Plan) -> Cases:
    return ((host.name, host.name) for host in plan.hosts if plan.services_on(host.name))


def _idle_hosts(plan: Plan) -> Cases:
    return ((host.name, host.name) for host in plan.hosts if not plan.services_on(host.name))


def _seats(plan: Plan) -> Cases:
    return ((member.name, member) for member in members(plan))


def _tiers(plan: Plan) -> Cases:
    return ((tier.name, tier) for tier in plan.tiers if tier.host)


def _pairs(plan: Plan) -> Cases:
    return ((pair.name, pair) for pair in all_pairs(plan))


def _allowed_pairs(plan: Plan) -> Cases:
    return ((pair.name, pair) for pair in all_pairs(plan) if pair.allowed)


def _crowded_tiers(plan: Plan) -> Cases:
    crowds = {tier.name: [item for item in members(plan) if item.tier == tier] for tier in plan.tiers}
    return ((tier.name, tier) for tier in plan.tiers if len(crowds[tier.name]) > 1)


def _egress(plan: Plan) -> Cases:
    return ((member.name, member) for member in members(plan) if member.service.egress)


def _confined(plan: Plan) -> Cases:
    return ((member.name, member) for member in members(plan) if not member.service.egress)


def _database_users(plan: Plan) -> Cases:
    return ((member.name, member) for member in members(plan) if member.service.program in WITH_PASSWORD)


def _visits(plan: Plan) -> Cases:
    return ((visit.name, visit) for visit in visits(plan))


#: Fixtures whose cases are replicas: the test is given where the replica is.
SEATS = frozenset({"seat", "egress_seat", "confined_seat", "database_user"})
#: By fixture: the cases of a plan.
CASES: Mapping[str, Callable[[Plan], Cases]] = {
    "host_name": _hosts,
    "busy_host": _busy_hosts,
    "idle_host": _idle_hosts,
    "seat": _seats,
    "tier": _tiers,
    "pair": _pairs,
    "allowed_pair": _allowed_pairs,
    "crowded_tier": _crowded_tiers,
    "egress_seat": _egress,
    "confined_seat": _confined,
    "database_user": _database_users,
    "visit": _visits,
}
