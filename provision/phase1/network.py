"""The network of phase 1, by hand from kernel primitives. Pure: the plan and a host in, chapters of resources out."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

from provision import names as nameserver
from provision.marks import Mark
from provision.phase1 import firewall
from provision.phase1.facts import Facts
from provision.plug import INNER, mac, plugged
from provision.resource import Resource, Section
from provision.resources.file import Directory, TextFile
from provision.resources.ip import Address, Route
from provision.resources.link import Bridge
from provision.resources.sysctl import Sysctl
from provision.resources.tagged import Untagged
from underlay.topology import Plan, Replica, Service, Tier

_DEFAULT = IPv4Network("0.0.0.0/0")


def guard(plan: Plan, host: str, mark: Mark) -> Section:
    """Return the rules."""
    return Section(
        "The guard, before there is a road",
        "Rules first, so that no packet is ever forwarded without them. Everything is denied but the plan's flows. "
        "Chains of our own hang on the kernel's, each only for packets that come from a bridge of ours or go to one: "
        "in the filter table those for what comes into the host and what passes through it, in the nat table those "
        "that rewrite addresses. Whoever inserts a rule before ours decides first, as Docker does whenever it starts. "
        "So the guard stands a second time in the security table, which packets pass after the filter table: what "
        "somebody accepts too much there is dropped here. Frames with a VLAN tag are not shown to iptables, and nobody "
        "here has a use for them: they are dropped where they come in.",
        (*firewall.tables(plan, host, mark), Untagged(_ports(plan, host))),
    )


def _ports(plan: Plan, host: str) -> tuple[str, ...]:
    return tuple(item.link for service in plan.services_on(host) for item in service.replicas)


def bridges(plan: Plan, host: str) -> Section:
    """Return the switches."""
    published = {plan.service(entry.service).tier for entry in plan.published if entry.host == host}
    resources: list[Resource] = []
    for tier in plan.tiers_on(host):
        resources += bridge(plan, tier)
        if tier.name in published:
            # Lets the host's own 127.0.0.1 reach the published port; the guard keeps the tier from using it.
            resources.append(Sysctl(None, f"net.ipv4.conf.{tier.bridge}.route_localnet", "1", of_link=tier.bridge))
    return Section(
        "A bridge for each tier",
        "A bridge is a switch in the kernel. Its own address is the tier's way out, as docker0 is for containers. "
        "IPv6 is off, since no rule guards it: each link would else have a link-local address that goes around the "
        "rules.",
        tuple(resources),
    )


def bridge(plan: Plan, tier: Tier) -> tuple[Resource, ...]:
    """Return the switch of one tier."""
    return (
        Bridge(tier.bridge, plan.underlay.mtu, mac(tier.gateway.ip)),
        Sysctl(None, f"net.ipv6.conf.{tier.bridge}.disable_ipv6", "1", of_link=tier.bridge),
        Address(None, tier.bridge, tier.gateway),
    )


def namespaces(plan: Plan, host: str, mark: Mark) -> Section:
    """Return the namespaces, their cables, addresses and routes."""
    resources: list[Resource] = []
    for service in plan.services_on(host):
        tier = plan.tier(service.tier)
        for replica in service.replicas:
            resources += namespace(plan, mark, service, tier, replica)
    return Section(
        "A namespace for each replica, plugged into its tier",
        "A network namespace has links, addresses, routes, rules and sockets of its own. A veth pair is a cable: one "
        "end is a port of the bridge, the other is eth0 inside. A resolv.conf of its own is bound over the host's one "
        "by `ip netns exec`; the host's file is never written.",
        tuple(resources),
    )


def namespace(plan: Plan, mark: Mark, service: Service, tier: Tier, replica: Replica) -> tuple[Resource, ...]:
    """Return what one replica has: namespace, cable, address, route, and whom it asks for names."""
    name = replica.namespace
    return (
        *plugged(plan.underlay.mtu, tier.bridge, service, replica),
        Route(name, _DEFAULT, tier.gateway.ip, INNER),
        TextFile(
            Path("/etc/netns") / name / "resolv.conf",
            f"# {mark.text}\nnameserver {tier.gateway.ip}\nsearch {plan.domain}\noptions timeout:1 attempts:2\n",
            in_place=True,
        ),
    )


def neighbours(plan: Plan, host: str, facts: Facts) -> Section:
    """Return the routes to the tiers of other hosts."""
    others = [tier for tier in plan.tiers if tier.host not in (None, host)]
    return Section(
        "The way to the tiers on other hosts",
        "Each host routes the other's tiers through the underlay.",
        tuple(Route(None, tier.subnet, plan.host(str(tier.host)).address.ip, facts.underlay_link) for tier in others),
    )


def names(plan: Plan, host: str, mark: Mark) -> Section:
    """Return the name server."""
    tiers = plan.tiers_on(host)
    directory = mark.settings / "dns"
    hosts = "".join(f"{replica.ip} {replica.name} {service.name}\n" for service, replica in plan.replicas())
    config = nameserver.settings(
        mark,
        (tier.gateway.ip for tier in tiers),
        f"addn-hosts={directory / 'hosts'}",
        "expand-hosts",
        f"domain={plan.domain}",
    )
    zone = TextFile(directory / "hosts", f"# {mark.text}\n{hosts}")
    settings = TextFile(directory / "dnsmasq.conf", config)
    return Section(
        "Names",
        "One dnsmasq serves the plan's names to all namespaces of the host, as Docker's embedded DNS does for "
        "containers. A service's name gives the addresses of all its replicas.",
        (
            Directory(mark.settings),
            Directory(directory),
            zone,
            settings,
            nameserver.server("dns", settings, tuple(f"link {tier.bridge}" for tier in tiers), (zone,)),
        ),
    )
