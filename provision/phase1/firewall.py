"""The plan's flows in phase 1, and the translation of addresses there. Pure: the plan in, rules out."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from provision import guard, names
from provision.guard import Door, Ground, Way
from provision.marks import Mark
from provision.resources.rules import Chain, Jump, Table
from underlay.topology import Plan, Published, Replica, Service, flow_pairs


def tables(plan: Plan, host: str, mark: Mark) -> tuple[Table, ...]:
    """Return the tables of a host: the guard's two, and nat."""
    ground = _ground(plan, host)
    return (guard.last(ground, mark), guard.polite(ground, mark), _nat(plan, host, mark))


def _ground(plan: Plan, host: str) -> Ground:
    tiers = plan.tiers_on(host)
    local = {service.name for service in plan.services_on(host)}
    published = [(entry, plan.service(entry.service)) for entry in plan.published if entry.host == host]
    return Ground(
        bridges=tuple(tier.bridge for tier in tiers),
        ways=tuple(
            Way(
                source.ip,
                replica.ip,
                target.port,
                f"{source.name} to {replica.name}",
                _bridge(plan, source) if source.service in local else None,
            )
            for source, target, replica in flow_pairs(plan)
        ),
        leaving=tuple(replica.ip for replica in _may_leave(plan, host)),
        doors=tuple(
            Door(entry.port, replica.ip, service.port) for entry, service in published for replica in service.replicas
        ),
        inside=plan.inside,
        reachable=tuple(rule for tier in tiers for rule in names.reachable(tier.gateway.ip, tier.bridge)),
        joining=guard.joining(plan),
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


def _bridge(plan: Plan, replica: Replica) -> str:
    return plan.tier(plan.service(replica.service).tier).bridge


def _may_leave(plan: Plan, host: str) -> Iterator[Replica]:
    for service in plan.services_on(host):
        if service.egress:
            yield from service.replicas


def _published_dnat(entry: Published, service: Service) -> Iterator[str]:
    """Spread new connections over the replicas: each rule takes its share of what the earlier ones let through."""
    addresses: list[IPv4Address] = [replica.ip for replica in service.replicas]
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        share = f"-m statistic --mode nth --every {left} --packet 0 " if left > 1 else ""
        yield f"-p tcp -m tcp --dport {entry.port} {share}-j DNAT --to-destination {address}:{service.port}"
