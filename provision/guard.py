"""What the plan allows as iptables rules for one host, whoever makes its networks. Pure.

Five chains: who comes into the host from a network of the lab (GUARD), what is forwarded FROM one and from elsewhere TO
one, what may leave the lab (EGRESS), and the one place where packets are refused and counted (DENY). Only packets that
come from a bridge of the phase, or go to one, are led into them: what the host's other networks do is not ours to
accept. Rules are written as iptables-save writes them, so that they can be compared.

They stand twice. In the filter table a refused connection is told so at once; but whoever inserts a rule before ours
there, as Docker does whenever it starts, accepts what we deny. So the same chains stand in the security table, which
every accepted packet passes after the filter table (nf_ip_hook_priorities, linux/netfilter_ipv4.h), and where nobody
else has business. There packets are dropped: REJECT is for the filter table alone (iptables-extensions(8)). What is
allowed there is only let pass by: another phase, whose bridge it goes to, has a word, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from provision.marks import Mark
from provision.resources.rules import Chain, Jump, Table
from underlay.topology import Plan

#: The two tables, the polite one first.
POLITE, LAST = "filter", "security"
_ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED"
_REFUSE = ("-p tcp -j REJECT --reject-with tcp-reset", "-j DROP")


@dataclass(frozen=True, slots=True)
class Way:
    """A TCP connection that may be opened. ``name`` says who connects to whom.

    ``link`` is the bridge that it comes from, if it begins on this host.
    """

    source: IPv4Address
    target: IPv4Address
    port: int
    name: str
    link: str | None


@dataclass(frozen=True, slots=True)
class Door:
    """A published port of the host, and the address and port behind it."""

    port: int
    target: IPv4Address
    target_port: int


@dataclass(frozen=True, slots=True)
class Ground:
    """What there is to guard on a host: a phase's bridges, and what is allowed from and to what stands on them.

    ``leaving`` are addresses that may connect to the world, and to published ports; ``inside`` are the lab's own
    ranges, which are not the world. ``reachable`` says what of the host itself may be reached, and ``joining`` what is
    for the hosts among themselves, which nobody may reach who leaves by one of them: rules without their target.
    """

    bridges: tuple[str, ...]
    ways: tuple[Way, ...]
    leaving: tuple[IPv4Address, ...]
    doors: tuple[Door, ...]
    inside: tuple[IPv4Network, ...]
    reachable: tuple[str, ...] = ()
    joining: tuple[str, ...] = ()


def joining(plan: Plan) -> tuple[str, ...]:
    """Return what of the underlay is for hosts alone: the tunnel's port.

    Who leaves the lab by way of a host has its address, which the other end of the tunnel believes. So every phase that
    lets somebody out denies it, whether or not the tunnel is there.
    """
    return (f"-d {plan.underlay.subnet} -p udp -m udp --dport {plan.tunnel.port}",)


def polite(ground: Ground, mark: Mark, forward: str = "FORWARD") -> Table:
    """Return the filter table's rules; ``forward`` is the chain in which what is forwarded is led to ours."""
    deny, leave = f"-j {mark.chain}DENY", f"-j {mark.chain}EGRESS"
    begun = [_allow(way, "ACCEPT") for way in ground.ways if way.link]
    come = [_allow(way, "ACCEPT") for way in ground.ways if not way.link]
    chains = _chains(ground, mark, "ACCEPT", [*begun, *_leaving(ground, leave), deny], [*come], _REFUSE)
    return Table(POLITE, chains, _jumps(ground, mark, forward), (("FORWARD", "DROP"),))


def last(ground: Ground, mark: Mark) -> Table:
    """Return the same for the security table, where nobody comes before.

    Who passes FROM is asked by TO as well, which so knows those who begin here, by their bridge.
    """
    deny, leave = f"-j {mark.chain}DENY", f"-g {mark.chain}EGRESS"
    begun = [_allow(way, "RETURN") for way in ground.ways if way.link]
    come = [_allow(way, "RETURN", way.link) for way in ground.ways]
    chains = _chains(ground, mark, "RETURN", [*begun, *_leaving(ground, leave), deny], come, ("-j DROP",))
    return Table(LAST, chains, _jumps(ground, mark, "FORWARD"))


def _chains(
    ground: Ground, mark: Mark, allow: str, leaving: Sequence[str], coming: Sequence[str], refuse: Sequence[str]
) -> tuple[Chain, ...]:
    """Return the chains; ``allow`` is the target of what is allowed."""

    def chain(name: str) -> str:
        return mark.chain + name

    deny, established = f"-j {chain('DENY')}", f"{_ESTABLISHED} -j {allow}"
    through = [_through(door, allow) for door in ground.doors]
    return (
        Chain(chain("GUARD"), (established, *(f"{rule} -j {allow}" for rule in ground.reachable), deny)),
        Chain(chain("FROM"), (established, *leaving)),
        Chain(chain("TO"), (established, *coming, *through, deny)),
        Chain(
            chain("EGRESS"),
            (
                *through,
                *(f"-d {subnet} {deny}" for subnet in ground.inside),
                *(f"{rule} {deny}" for rule in ground.joining),
                f"-j {allow}",
            ),
        ),
        Chain(chain("DENY"), tuple(refuse)),
    )


def _leaving(ground: Ground, leave: str) -> list[str]:
    return [f"-s {address}/32 {leave}" for address in ground.leaving]


def _jumps(ground: Ground, mark: Mark, forward: str) -> tuple[Jump, ...]:
    guard, leaving, coming = (mark.chain + name for name in ("GUARD", "FROM", "TO"))
    return (
        *(Jump("INPUT", guard, f"-i {bridge}") for bridge in ground.bridges),
        *(Jump(forward, leaving, f"-i {bridge}") for bridge in ground.bridges),
        *(Jump(forward, coming, f"-o {bridge}") for bridge in ground.bridges),
    )


def _allow(way: Way, target: str, link: str | None = None) -> str:
    comment, come = f'-m comment --comment "{way.name}"', f"-i {link} " if link else ""
    return f"-s {way.source}/32 -d {way.target}/32 {come}-p tcp -m tcp --dport {way.port} {comment} -j {target}"


def _through(door: Door, target: str) -> str:
    match = f"-m conntrack --ctstate DNAT --ctorigdstport {door.port}"
    return f"-d {door.target}/32 -p tcp -m tcp --dport {door.target_port} {match} -j {target}"
