"""The plan's flows as iptables rules for one host. Pure: the plan in, rules out.

Five chains in the filter table: who comes into the host from a tier (GUARD), what is forwarded FROM a tier and from
elsewhere TO one, what may leave the lab (EGRESS), and the one place where packets are refused and counted (DENY). Only
packets that come from a bridge of ours, or go to one, are led into them: what the host's other networks do is not ours
to accept. Rules are written as iptables-save writes them, so that they can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from provision.marks import Mark
from provision.resources.rules import Chain, Jump, Table
from underlay.topology import Plan, Published, Replica, Service

_DNS = 53
_ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"


def tables(plan: Plan, host: str, mark: Mark) -> tuple[Table, ...]:
    """Return the filter and nat tables of a host."""
    return (_filter(plan, host, mark), _nat(plan, host, mark))


def _filter(plan: Plan, host: str, mark: Mark) -> Table:
    def chain(name: str) -> str:
        return mark.chain + name

    tiers = plan.tiers_on(host)
    deny = f"-j {chain('DENY')}"
    guard = [_ESTABLISHED]
    for tier in tiers:
        guard += [
            f"-d {tier.gateway.ip}/32 -i {tier.bridge} -p {protocol} -m {protocol} --dport {_DNS} -j ACCEPT"
            for protocol in ("udp", "tcp")
        ]

    local = {service.name for service in plan.services_on(host)}
    from_tier = [_ESTABLISHED, *(rule for source, rule in _flows(plan) if source in local)]
    to_tier = [_ESTABLISHED, *(rule for source, rule in _flows(plan) if source not in local)]
    from_tier += [f"-s {item.ip}/32 -j {chain('EGRESS')}" for item in _may_leave(plan, host)]

    published = [(entry, plan.service(entry.service)) for entry in plan.published if entry.host == host]
    accept = [rule for entry, service in published for rule in _published_accept(entry, service)]
    egress = [*accept, *(f"-d {tier.subnet} {deny}" for tier in plan.tiers), "-j ACCEPT"]
    return Table(
        "filter",
        (
            Chain(chain("GUARD"), (*guard, deny)),
            Chain(chain("FROM"), (*from_tier, deny)),
            Chain(chain("TO"), (*to_tier, *accept, deny)),
            Chain(chain("EGRESS"), tuple(egress)),
            Chain(chain("DENY"), ("-p tcp -j REJECT --reject-with tcp-reset", "-j DROP")),
        ),
        (
            *(Jump("INPUT", chain("GUARD"), f"-i {tier.bridge}") for tier in tiers),
            *(Jump("FORWARD", chain("FROM"), f"-i {tier.bridge}") for tier in tiers),
            *(Jump("FORWARD", chain("TO"), f"-o {tier.bridge}") for tier in tiers),
        ),
        (("FORWARD", "DROP"),),
    )


def _nat(plan: Plan, host: str, mark: Mark) -> Table:
    publish, target_chain, leave = (mark.chain + name for name in ("PUBLISH", "TARGET", "LEAVE"))
    # A service that may not go out does not reach a published port either: its packets keep their destination and meet
    # the guard of the host.
    chosen = [f"-s {item.ip}/32 -j {target_chain}" for item in _may_leave(plan, host)]
    chosen += [f"-i {tier.bridge} -j RETURN" for tier in plan.tiers_on(host)]
    chosen.append(f"-j {target_chain}")
    forward_to: list[str] = []
    masquerade: list[str] = []
    for entry in plan.published:
        if entry.host != host:
            continue
        service = plan.service(entry.service)
        tier = plan.tier(service.tier)
        forward_to += _published_dnat(entry, service)
        for replica in service.replicas:
            target = f"-d {replica.ip}/32 -o {tier.bridge} -p tcp -m tcp --dport {service.port}"
            # A neighbour's or the host's own connection to the published port must come back through this host.
            masquerade += [
                f"-s {source} {target} -m conntrack --ctstate DNAT -j MASQUERADE"
                for source in (tier.subnet, "127.0.0.0/8")
            ]
    masquerade += [f"-d {tier.subnet} -j RETURN" for tier in plan.tiers]
    masquerade += [f"-s {tier.subnet} -j MASQUERADE" for tier in plan.tiers_on(host)]
    local = "-m addrtype --dst-type LOCAL"
    return Table(
        "nat",
        (Chain(publish, tuple(chosen)), Chain(target_chain, tuple(forward_to)), Chain(leave, tuple(masquerade))),
        (Jump("PREROUTING", publish, local), Jump("OUTPUT", publish, local), Jump("POSTROUTING", leave)),
    )


def _may_leave(plan: Plan, host: str) -> Iterator[Replica]:
    for service in plan.services_on(host):
        if service.egress:
            yield from service.replicas


def _flows(plan: Plan) -> Iterator[tuple[str, str]]:
    """Each allowed pair of replicas as the name of the source service and a rule."""
    for flow in plan.flows:
        target = plan.service(flow.target)
        for source in plan.service(flow.source).replicas:
            for replica in target.replicas:
                yield flow.source, _allow(source, replica, target.port)


def _allow(source: Replica, target: Replica, port: int) -> str:
    comment = f'-m comment --comment "{source.name} to {target.name}"'
    return f"-s {source.ip}/32 -d {target.ip}/32 -p tcp -m tcp --dport {port} {comment} -j ACCEPT"


def _published_accept(entry: Published, service: Service) -> Iterator[str]:
    for replica in service.replicas:
        match = f"-m conntrack --ctstate DNAT --ctorigdstport {entry.port}"
        yield f"-d {replica.ip}/32 -p tcp -m tcp --dport {service.port} {match} -j ACCEPT"


def _published_dnat(entry: Published, service: Service) -> Iterator[str]:
    """Spread new connections over the replicas: each rule takes its share of what the earlier ones let through."""
    addresses: list[IPv4Address] = [replica.ip for replica in service.replicas]
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        share = f"-m statistic --mode nth --every {left} --packet 0 " if left > 1 else ""
        yield f"-p tcp -m tcp --dport {entry.port} {share}-j DNAT --to-destination {address}:{service.port}"
