"""What stands around the containers of phase 2: the guard, and the daemon with its images. Pure."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path

from provision import guard
from provision import names as nameserver
from provision.certificates import Kind, Paper
from provision.guard import Door, Ground, Way
from provision.marks import Mark
from provision.phase2.compose import LOG_FILES, LOG_SIZE
from provision.phase2.facts import Facts
from provision.resource import Resource, Section
from provision.resources.docker.daemon import NAME, PEOPLE, Daemon, Leavings
from provision.resources.docker.image import PulledImage
from provision.resources.docker.kernel import DockerRules
from provision.resources.docker.network import DockerNetwork
from provision.resources.file import Directory, TextFile
from provision.resources.program import Awaited, Program
from provision.resources.secret import Certificate
from provision.resources.sysctl import Sysctl
from underlay.topology import Containers, Plan, flow_pairs
from underlay.topology.docker import PREFIX, REGISTRY_PORT

_REGISTRY_USER = "docker-registry"
PROJECT = "shop"


def rules(plan: Plan, containers: Containers, mark: Mark) -> Section:
    """Return the rules."""
    ground = _ground(containers, plan.inside)
    return Section(
        "The guard, before there is a container",
        "Docker alone lets every container connect to every other one on its bridges, to all of the host, and to what "
        "stands on other bridges of the host. The same rules as in phase 1 deny all but the plan's flows: from "
        "DOCKER-USER, which Docker asks first and whose rules it keeps when it starts again; from INPUT, which Docker "
        "leaves open; and once more in the security table, where nobody comes before. Whether there was anything of "
        "Docker's in the kernel before is written down, so that it can go with the phase.",
        (Leavings(), guard.last(ground, mark), guard.polite(ground, mark, PEOPLE)),
    )


def _ground(containers: Containers, inside: tuple[IPv4Network, ...]) -> Ground:
    plan = containers.plan
    tiers = [tier for tier in plan.tiers if tier.host]
    leaving = [
        attachment.address.ip
        for service in plan.services
        if service.egress
        for item in service.replicas
        for attachment in containers.attachments[item.name]
    ]
    ways = tuple(
        Way(
            containers.address(source, target.tier),
            item.ip,
            target.port,
            f"{source.name} to {item.name}",
            plan.tier(target.tier).bridge,
        )
        for source, target, item in flow_pairs(plan)
    )
    reachable = [rule for tier in tiers for rule in nameserver.reachable(containers.default.ip, tier.bridge)]
    # A published port called from a container is not translated, but answered by Docker's proxy on the host.
    reachable += [
        f"-s {address}/32 -p tcp -m tcp --dport {entry.port}" for entry in plan.published for address in leaving
    ]
    return Ground(tuple(tier.bridge for tier in tiers), ways, tuple(leaving), _doors(plan), inside, tuple(reachable),
                  guard.joining(plan))  # fmt: skip


def _doors(plan: Plan) -> tuple[Door, ...]:
    return tuple(
        Door(entry.port, item.ip, plan.service(entry.service).port)
        for entry in plan.published
        for item in plan.service(entry.service).replicas[:1]
    )


def registry(plan: Plan, host: str, mark: Mark) -> Section:
    """Return the registry that the images are pulled from."""
    directory, address = mark.settings / "registry", plan.host(host).address.ip
    text = "\n".join(
        (
            f"# {mark.text}",
            "version: 0.1",
            "log: {level: warn}",
            "storage:",
            f"  filesystem: {{rootdirectory: {mark.places.shop / 'registry'}}}",
            "  maintenance: {readonly: {enabled: true}}",
            "http:",
            f"  addr: {address}:{REGISTRY_PORT}",
            f"  tls: {{certificate: {directory / 'host.crt'}, key: {directory / 'host.key'}}}",
            "",
        )
    )
    config = TextFile(directory / "config.yml", text)
    papers = (
        Certificate(directory / "host.key", _REGISTRY_USER, Paper(Kind.KEY, host)),
        Certificate(directory / "host.crt", "root", Paper(Kind.CERTIFICATE, host, (str(address),))),
    )
    argv = ("docker-registry", "serve", str(config.path))
    base = f"https://{host}:{REGISTRY_PORT}/v2/"
    question = ("curl", "--silent", "--show-error", "--fail", "--cacert", str(authority(host).path), base)
    return Section(
        "A registry",
        "Where images come from. It serves those that the workstation built, read-only, and shows who it is by a "
        "certificate of the lab's own authority, which is derived from the lab's secret as passwords are. Docker "
        "trusts an authority for one registry if it finds it below certs.d.",
        (
            Directory(mark.settings),
            Directory(directory),
            *papers,
            config,
            authority(host),
            Awaited(Program("registry", None, _REGISTRY_USER, argv, inputs=(config,), secrets=papers), question),
        ),
    )


def authority(host: str) -> Certificate:
    """Return the authority's certificate, where Docker looks for it."""
    path = Path("/etc/docker/certs.d") / f"{host}:{REGISTRY_PORT}" / "ca.crt"
    return Certificate(path, "root", Paper(Kind.AUTHORITY, host))


def docker(containers: Containers, mark: Mark) -> tuple[Section, Daemon]:
    """Return the daemon, and the name server that it asks about names that it does not know."""
    plan, default = containers.plan, containers.default
    settings = {
        "bip": str(default),
        "default-address-pools": [{"base": str(plan.pools.docker), "size": PREFIX}],
        "dns": [str(default.ip)],
        "log-driver": "json-file",
        "log-opts": {"max-size": LOG_SIZE, "max-file": LOG_FILES},
        "mtu": plan.underlay.mtu,
    }
    # JSON knows no comments; the mark is in the directory.
    config = TextFile(mark.settings / "docker.json", json.dumps(settings, indent=2) + "\n")
    # Half of the time that the supervisor waits for it.
    patience = max(1, round(plan.timeouts.command / 2))
    argv = ("dockerd", "--config-file", str(config.path))
    program = Program(NAME, None, "root", argv, inputs=(config,), stop_wait=patience)
    daemon = Daemon(program, ("docker", "version"))
    names = TextFile(mark.settings / "dnsmasq.conf", nameserver.settings(mark, (default.ip,)))
    return (
        Section(
            "Docker",
            "Its daemon, with addresses from the plan's pool alone. A container asks Docker for names; what Docker "
            "does not know it asks on, here of a name server that knows nothing: so an unknown name is told to be none "
            "at once, instead of after the 8 seconds in which nobody answers, and no name of the lab leaks.",
            (
                config,
                daemon,
                names,
                nameserver.server("resolver", names, (daemon.identity,)),
            ),
        ),
        daemon,
    )  # fmt: skip


def images(facts: Facts, host: str, daemon: Daemon) -> tuple[Section, dict[str, PulledImage]]:
    """Return the shop's images, by name."""
    images = {
        name: PulledImage(
            f"{host}:{REGISTRY_PORT}/{image.repository}@{image.digest}",
            (daemon.identity, "program registry", authority(host).identity),
        )
        for name, image in facts.images.items()
    }
    return Section(
        "Images",
        "Pulled by digest: the name of what is inside. A tag can be moved, a digest cannot.",
        tuple(images.values()),
    ), images


def networks(containers: Containers, daemon: Daemon) -> tuple[Section, tuple[DockerNetwork, ...]]:
    """Return a network for each tier."""
    plan = containers.plan
    networks = tuple(
        DockerNetwork(PROJECT, tier.name, daemon.identity, tier.subnet, tier.gateway, tier.bridge, plan.underlay.mtu,
                      containers.internal(tier))
        for tier in plan.tiers
        if tier.host
    )  # fmt: skip
    resources: list[Resource] = []
    for network in networks:
        resources += [
            network,
            Sysctl(None, f"net.ipv6.conf.{network.bridge}.disable_ipv6", "1", of_link=network.bridge),
            # A daemon that was once started without docker-proxy leaves it on.
            Sysctl(None, f"net.ipv4.conf.{network.bridge}.route_localnet", "0", of_link=network.bridge),
        ]
    leading_out = tuple((network.subnet, network.bridge) for network in networks if not network.internal)
    published = tuple((door.port, door.target, door.target_port) for door in _doors(plan))
    resources.append(DockerRules(NAME, daemon.identity, leading_out, published))
    return Section(
        "A network for each tier",
        "What phase 1 does with a bridge, an address and rules, Docker does with one command. The bridges have names "
        "that a person can read, and containers on one bridge do not reach each other unless a rule lets them (icc). "
        "Where nobody is to go out or come in, the network is internal: it has no way to anywhere.",
        tuple(resources),
    ), networks
