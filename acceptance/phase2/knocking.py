"""Somebody who knocks at every door of both phases, from everywhere, for as long as something is going on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from acceptance.phase2.stage import InContainers
from acceptance.suite.knocking import Knocking, Way, knock
from underlay.hosts.base import Host
from underlay.topology import Plan, flow_pairs


def allowed(stage: InContainers) -> frozenset[Way]:
    """Return every connection that some phase's plan allows, as the kernel shows it."""
    ways = set()
    by_hand, docker = stage.lab.plan, stage.plan
    for source, target, item in flow_pairs(by_hand):
        ways.add((str(source.ip), f"{item.ip}:{target.port}"))
    for source, target, item in flow_pairs(docker):
        ways.add((str(stage.containers.address(source, target.tier)), f"{item.ip}:{target.port}"))
    # Whoever may go out may use what is published, at any address of the host.
    for service, item in docker.replicas():
        for each in stage.containers.attachments[item.name] if service.egress else ():
            ways |= {
                (str(each.address.ip), f"{tier.gateway.ip}:{entry.port}")
                for entry in docker.published
                for tier in docker.tiers_on(entry.host)
            }
    for plan in (by_hand, docker):
        # Each reaches itself without a rule.
        own = {item.name: stage.containers.attachments[item.name] for _, item in plan.replicas()}
        for service, item in plan.replicas():
            for address in (str(item.ip), *(str(each.address.ip) for each in own[item.name])):
                ways.add((address, f"{item.ip}:{service.port}"))
    return frozenset(ways)


def targets(stage: InContainers) -> list[tuple[str, int]]:
    """Return the services of both phases, and the published ports at the bridges' addresses."""
    plans: tuple[Plan, ...] = (stage.lab.plan, stage.plan)
    found = [(str(item.ip), service.port) for plan in plans for service, item in plan.replicas()]
    tiers = stage.plan.tiers_on(str(stage.containers.host))
    return [*found, *((str(tier.gateway.ip), entry.port) for tier in tiers for entry in stage.plan.published)]


def knocking(
    stage: InContainers, host: Host, steady: Sequence[tuple[str, str, int]]
) -> AbstractContextManager[list[Knocking]]:
    """Knock at all of them while the block runs; its one result is in the list afterwards."""
    return knock(host, targets(stage), steady, stage.plan.timeouts.ready)


def steady(stage: InContainers) -> list[tuple[str, str, int]]:
    """Return a flow of phase 1 that must never fail: a namespace, an address and a port."""
    pairs = flow_pairs(stage.lab.plan)
    return [(source.namespace, str(item.ip), target.port) for source, target, item in pairs][:1]
