"""The plan as text: YAML that reads back to the same plan, and JSON of all that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import yaml

from underlay.topology.derive import dns_names, flow_pairs
from underlay.topology.docker import in_containers
from underlay.topology.model import Plan, Service

#: What :mod:`json` can write.
Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"

_WIDTH = 120


def render_plan(plan: Plan) -> str:
    """Return the plan as YAML, everything said that a plan may leave out; parsing it gives an equal plan."""
    return "".join(_dump(name, value) for name, value in plan_as_data(plan).items()).rstrip("\n") + "\n"


def plan_as_data(plan: Plan) -> dict[str, Json]:
    """Return what a plan's file says, everything said that it may leave out."""
    return {
        "lab": plan.lab,
        "domain": plan.domain,
        "hosts": {
            host.name: {"address": str(host.address.ip), "cpus": host.cpus, "memory": host.memory}
            for host in plan.hosts
        },
        "underlay": {
            "subnet": str(plan.underlay.subnet),
            "gateway": str(plan.underlay.gateway.ip),
            "mtu": plan.underlay.mtu,
        },
        "pools": {"docker": str(plan.pools.docker), "swarm": str(plan.pools.swarm)},
        "tiers": {tier.name: {"subnet": str(tier.subnet)} for tier in plan.tiers},
        "services": {service.name: _service(plan, service) for service in plan.services},
        "flows": [f"{flow.source} -> {flow.target}" for flow in plan.flows],
        "publish": [{"host": entry.host, "port": entry.port, "service": entry.service} for entry in plan.published],
        "tunnel": {"vni": plan.tunnel.vni, "port": plan.tunnel.port, "subnet": str(plan.tunnel.subnet)},
        "timeouts": {
            "connect": _number(plan.timeouts.connect),
            "command": _number(plan.timeouts.command),
            "ready": _number(plan.timeouts.ready),
            "cache": _number(plan.timeouts.cache),
        },
    }


def plan_as_json(plan: Plan) -> dict[str, Json]:
    """Return what the plan comes to: all that is written in it and all that follows, ready for :func:`json.dumps`.

    Addresses of interfaces carry their prefix length; ``flows`` are expanded to pairs of replicas.
    """
    return {
        "lab": plan.lab,
        "domain": plan.domain,
        "hosts": [
            {
                "name": host.name,
                "address": str(host.address),
                "cpus": host.cpus,
                "memory": host.memory,
                "bridges": [tier.bridge for tier in plan.tiers_on(host.name)],
                "namespaces": [
                    replica.namespace for service in plan.services_on(host.name) for replica in service.replicas
                ],
            }
            for host in plan.hosts
        ],
        "underlay": {
            "subnet": str(plan.underlay.subnet),
            "gateway": str(plan.underlay.gateway),
            "mtu": plan.underlay.mtu,
        },
        "pools": {"docker": str(plan.pools.docker), "swarm": str(plan.pools.swarm)},
        "tiers": [
            {
                "name": tier.name,
                "subnet": str(tier.subnet),
                "gateway": str(tier.gateway),
                "bridge": tier.bridge,
                "host": tier.host,
            }
            for tier in plan.tiers
        ],
        "docker": _docker_as_json(plan),
        "services": [_service_as_json(plan, service) for service in plan.services],
        "flows": [
            {
                "from": source.name,
                "from_address": str(source.ip),
                "to": target.name,
                "to_address": str(target.ip),
                "port": service.port,
            }
            for source, service, target in flow_pairs(plan)
        ],
        "published": [
            {
                "host": entry.host,
                "address": str(plan.host(entry.host).address.ip),
                "port": entry.port,
                "service": entry.service,
                "service_port": plan.service(entry.service).port,
            }
            for entry in plan.published
        ],
        "dns": {name: [str(address) for address in addresses] for name, addresses in dns_names(plan).items()},
        "tunnel": {"vni": plan.tunnel.vni, "port": plan.tunnel.port, "subnet": str(plan.tunnel.subnet)},
        "timeouts": {
            "connect": plan.timeouts.connect,
            "command": plan.timeouts.command,
            "ready": plan.timeouts.ready,
            "cache": plan.timeouts.cache,
        },
    }


def _service(plan: Plan, service: Service) -> Json:
    subnet = plan.tier(service.tier).subnet
    return {
        "tier": service.tier,
        "host": service.host,
        "program": service.program.value,
        "port": service.port,
        "first": int(service.replicas[0].ip) - int(subnet.network_address),
        "replicas": len(service.replicas),
        "egress": service.egress,
    }


def _docker_as_json(plan: Plan) -> Json:
    containers = in_containers(plan)
    return {
        "host": containers.host,
        "networks": [
            {
                "name": tier.name,
                "subnet": str(tier.subnet),
                "gateway": str(tier.gateway),
                "bridge": tier.bridge,
                "internal": containers.internal(tier),
            }
            for tier in containers.plan.tiers
        ],
        "containers": {
            name: {item.tier: str(item.address) for item in every} for name, every in containers.attachments.items()
        },
        "publish": [{"port": entry.port, "service": entry.service} for entry in containers.plan.published],
    }


def _service_as_json(plan: Plan, service: Service) -> Json:
    return {
        "name": service.name,
        "dns": f"{service.name}.{plan.domain}",
        "tier": service.tier,
        "host": service.host,
        "program": service.program.value,
        "port": service.port,
        "egress": service.egress,
        "replicas": [
            {
                "name": replica.name,
                "namespace": replica.namespace,
                "number": replica.number,
                "address": str(replica.address),
                "gateway": str(plan.tier(service.tier).gateway.ip),
                "link": replica.link,
                "bridge": plan.tier(service.tier).bridge,
                "dns": f"{replica.name}.{plan.domain}",
            }
            for replica in service.replicas
        ],
    }


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


def _dump(name: str, value: Json) -> str:
    # One level in block style, what is below it on one line, as a person writes it; flows are plain words, a line each.
    nested = isinstance(value, Mapping) or (isinstance(value, list) and name != "flows")
    text = yaml.safe_dump({name: value}, sort_keys=False, default_flow_style=None if nested else False, width=_WIDTH)
    return f"{text}\n" if isinstance(value, Mapping | list) else text
