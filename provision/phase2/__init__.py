"""Phase 2: the same shop with Docker, and what Docker leaves open closed."""

from __future__ import annotations

from provision.marks import Mark
from provision.phase2 import network, stack
from provision.phase2.facts import Facts, gather
from provision.phases import Definition
from provision.resource import Kind, Phase
from provision.resources import file, program, rules, secret, sysctl
from provision.resources.docker import container, daemon, image, kernel
from provision.resources.docker import network as docker_network
from provision.router import host_parameters
from underlay.topology import Plan, in_containers
from underlay.topology.docker import REGISTRY_PORT

MARK = Mark("phase2", 2)


def build(plan: Plan, host: str, facts: Facts) -> Phase:
    """Return phase 2 of one host. Docker alone knows one host: the others have nothing to do."""
    containers = in_containers(plan)
    if containers.host != host or not plan.services:
        return Phase(MARK, ())
    docker, running = network.docker(containers, MARK)
    pulled, images = network.images(facts, host, running)
    around, networks = network.networks(containers, running)
    return Phase(
        MARK,
        (
            network.rules(plan, containers, MARK),
            host_parameters(),
            network.registry(plan, host, MARK),
            docker,
            pulled,
            around,
            stack.section(containers, MARK, facts, images, networks),
        ),
    )


def claims(plan: Plan, host: str) -> frozenset[str]:
    """Return what only one phase may have on a host: the ports it publishes, and names in the kernel."""
    containers = in_containers(plan)
    if containers.host != host:
        return frozenset()
    ports = {f"TCP port {port}" for port in (REGISTRY_PORT, *(entry.port for entry in containers.plan.published))}
    return frozenset(ports | {f"link {tier.bridge}" for tier in containers.plan.tiers if tier.host})


DEFINITION = Definition(
    mark=MARK,
    ask=gather,
    build=build,
    claims=claims,
    # Containers before what they stand on, all of it before the daemon, and what that leaves after it; the guard last.
    kinds=(
        Kind((container.Container,), container.discover, states=container.states),
        Kind((), daemon.discover_hidden),
        Kind((docker_network.DockerNetwork,), docker_network.discover_networks),
        Kind((docker_network.Volume,), docker_network.discover_volumes),
        Kind((image.PulledImage,), image.discover),
        Kind((program.Program, program.Awaited, daemon.Daemon), program.discover, states=program.states),
        Kind((daemon.Leavings, kernel.DockerRules), daemon.discover),
        Kind((file.TextFile, file.Directory, secret.PasswordFile, secret.Certificate), file.discover),
        Kind((sysctl.Sysctl,), sysctl.discover),
        Kind((rules.Table,), rules.discover),
    ),
)
