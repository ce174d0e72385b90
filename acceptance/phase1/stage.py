"""Where things are in Phase 1: each replica in a namespace of its name, on the host and at the address of the plan."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from acceptance.modules import LabHost
from acceptance.suite.cases import Visit
from acceptance.suite.stage import Member, Seat, Stage
from underlay.hosts.base import Host
from underlay.topology import Program, dns_names

_SETTINGS = "/etc/underlay/phase1"
_NETNS = Path("/run/netns")
#: Where replicas keep what they write (a database its socket, too), below their names.
_RUN, _STATE = "/run/underlay/phase1", "/var/lib/underlay/phase1"
#: Characters of a user's name (useradd(8), CAVEATS).
_LONGEST_USER = 32


def user(seat: Seat) -> str:
    """Return the user that a replica runs as."""
    name = f"shop-{seat.service.name}"
    if len(name) <= _LONGEST_USER:
        return name
    return f"{name[: _LONGEST_USER - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


class ByHand(Stage):
    """Named namespaces, and programs under supervisord."""

    deny_chain = "PHASE1-DENY"
    secrets = (f"{_SETTINGS}/secrets", f"{_SETTINGS}/roles", "/etc/underlay/secret")

    def seat(self, member: Member) -> Seat:
        """Return where a replica is: what is made by hand does not move."""
        return Seat(member, member.service.host, str(_NETNS / member.replica.namespace), member.replica.ip)

    def enter(self, seat: Seat) -> Sequence[str]:
        """Return the words of ip-netns(8), which shows the namespace's own resolv.conf."""
        return ("ip", "netns", "exec", seat.replica.namespace)

    def resolver(self, seat: Seat) -> IPv4Address:
        """Return the tier's gateway, where dnsmasq answers."""
        return seat.tier.gateway.ip

    def names(self, seat: Seat) -> Mapping[str, frozenset[IPv4Address]]:
        """Return all names of the plan, with its domain and without: everybody is told the same."""
        full = {name: frozenset(addresses) for name, addresses in dns_names(self.plan).items()}
        return full | {name.removesuffix(f".{self.plan.domain}"): addresses for name, addresses in full.items()}

    def reverse(self, seat: Seat) -> Mapping[IPv4Address, str]:
        """Return the replicas' own names, which are told to everybody."""
        return {replica.ip: f"{replica.name}.{self.plan.domain}" for _, replica in self.plan.replicas()}

    def user(self, seat: Seat) -> str:
        """Return the user of the service; a name that is too long ends in a digest of it."""
        return user(seat)

    def secret(self, seat: Seat) -> str:
        """Return the file of the service's password."""
        return f"{_SETTINGS}/secrets/{seat.service.name}"

    def room(self, seat: Seat) -> frozenset[str]:
        """Return the replica's run directory; a database has its cluster besides."""
        return frozenset({f"{_RUN}/{seat.name}", f"{_STATE}/{seat.name}"})

    def stop(self, seat: Seat) -> None:
        """Have the supervisor stop it."""
        LabHost(self.machine(seat), self.plan).program(seat.name).stop()

    def start(self, seat: Seat) -> None:
        """Have the supervisor start it."""
        LabHost(self.machine(seat), self.plan).program(seat.name).start()

    def leave_behind(self, host: Host) -> None:
        """Kill the edges' first processes, and have them not started again: nginx's workers outlive them."""
        for seat in self.seats(host.name):
            if seat.service.program is Program.NGINX:
                host.run(["supervisorctl"], stdin=f"signal KILL {seat.name}\nstop {seat.name}\n")

    def seen_as(self, visit: Visit) -> IPv4Address:
        """Return whom the edge sees.

        Another host and outside: their own address. The host: its own, and by 127.0.0.1 the bridge's. A namespace on
        the edge's bridge: the bridge's; of another tier: its own; on another host: that host's.
        """
        plan, entry = self.plan, visit.entry
        gateway = plan.tier(plan.service(entry.service).tier).gateway.ip
        if visit.member is None:
            if visit.machine not in self.lab.hosts:
                return plan.underlay.gateway.ip
            return gateway if visit.address.is_loopback else plan.host(visit.machine).address.ip
        seat = self.seat(visit.member)
        if seat.host != entry.host:
            return plan.host(seat.host).address.ip
        return gateway if seat.tier.name == plan.service(entry.service).tier else seat.address

    def query(self, seat: Seat, statement: str) -> str:
        """Ask by the socket on the host, where root is postgres."""
        return self.machine(seat).run(
            ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--host", f"{_RUN}/{seat.name}",
             "--port", str(seat.service.port), "--username", "postgres", "--dbname", "shop", "--command", statement]
        ).stdout.strip()  # fmt: skip
