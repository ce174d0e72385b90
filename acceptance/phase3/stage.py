"""Where things are in Phase 3's tunnel: each replica in a namespace of its name, products on another host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address

import pytest

from acceptance.kernel import Link
from acceptance.modules import LabHost
from acceptance.suite.cases import Visit
from acceptance.suite.stage import Member, Seat, Stage
from acceptance.traffic import Listener
from underlay.topology import Plan, Stretched, across

#: What of the shop is not in the tunnel yet, and so cannot be asked.
_NO_SHOP = "no program of the shop runs in the tunnel"


class ByTunnel(Stage):
    """Named namespaces on a bridge that a VXLAN stretches across two hosts. The tests themselves serve there."""

    deny_chain = "PHASE3-DENY"
    #: It routes nothing, and what it changes of a host's own the phases beside it hold as well.
    own_settings = ""

    @staticmethod
    def laid_out(plan: Plan) -> Plan:
        """Return the plan as the tunnel has it: one tier, whose services stand on two hosts."""
        return across(plan).plan

    @property
    def stretched(self) -> Stretched:
        """Where the tunnel's ends are."""
        return across(self.lab.plan)

    def seat(self, member: Member) -> Seat:
        """Return where a replica is: what is made by hand does not move."""
        space = f"/run/netns/{member.replica.namespace}"
        return Seat(member, member.service.host, space, member.replica.ip)

    def ends(self) -> Mapping[str, LabHost]:
        """Return the hosts that the tunnel joins, by name."""
        return {name: LabHost(self.lab.hosts[name], self.plan) for name in self.stretched.bridges}

    def other(self, host: str) -> LabHost:
        """Return the host at the other end."""
        return next(end for name, end in self.ends().items() if name != host)

    def inner(self, seat: Seat) -> Link:
        """Return a replica's own link, as its kernel shows it."""
        (found,) = [link for link in self.inside(seat).links.values() if link.kind == "veth"]
        return found

    def mac(self, seat: Seat) -> str:
        """Return a replica's MAC address, as its own kernel says it."""
        return self.inner(seat).mac

    def enter(self, seat: Seat) -> Sequence[str]:
        """Return the words of ip-netns(8)."""
        return ("ip", "netns", "exec", seat.replica.namespace)

    @contextmanager
    def serving(self, lifetime: float | None = None) -> Iterator[None]:
        """Listen at each service's port, in each replica's place; for at most so many seconds."""
        with ExitStack() as stack:
            for host, here in self.by_host().items():
                wanted = [Listener("tcp", seat.space, port=seat.service.port) for seat in here]
                stack.enter_context(self.prober(host).listening(wanted, lifetime))
            yield

    def resolver(self, seat: Seat) -> IPv4Address:
        """Nobody answers for names."""
        pytest.skip(_NO_SHOP)

    def names(self, seat: Seat) -> Mapping[str, frozenset[IPv4Address]]:
        """Nobody answers for names."""
        pytest.skip(_NO_SHOP)

    def user(self, seat: Seat) -> str:
        """Nothing runs."""
        pytest.skip(_NO_SHOP)

    def secret(self, seat: Seat) -> str:
        """Nothing runs."""
        pytest.skip(_NO_SHOP)

    def room(self, seat: Seat) -> frozenset[str]:
        """Nothing runs."""
        pytest.skip(_NO_SHOP)

    def stop(self, seat: Seat) -> None:
        """Nothing runs."""

    def start(self, seat: Seat) -> None:
        """Nothing runs."""

    def seen_as(self, visit: Visit) -> IPv4Address:
        """Nothing is published."""
        pytest.skip(_NO_SHOP)

    def query(self, seat: Seat, statement: str) -> str:
        """Nothing runs."""
        pytest.skip(_NO_SHOP)
