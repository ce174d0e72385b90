"""Phase 1: the shop's network by hand from kernel primitives."""

from __future__ import annotations

from provision.marks import Mark
from provision.phase1 import network, programs
from provision.phase1.facts import Facts, gather
from provision.phases import Definition
from provision.resource import Kind, Phase
from provision.resources import file, ip, link, namespace, postgres, program, rules, secret, sysctl, tagged, user
from provision.router import host_parameters
from underlay.topology import Plan

MARK = Mark("phase1", 1)


def build(plan: Plan, host: str, facts: Facts) -> Phase:
    """Return phase 1 of one host. A host that the plan puts no service on has nothing to do."""
    if not plan.services_on(host):
        return Phase(MARK, ())
    return Phase(
        MARK,
        (
            network.guard(plan, host, MARK),
            host_parameters(),
            network.bridges(plan, host),
            network.namespaces(plan, host, MARK),
            network.neighbours(plan, host, facts),
            network.names(plan, host, MARK),
            programs.users(plan, host),
            programs.data(plan, host, MARK, facts),
            programs.programs(plan, host, MARK),
        ),
    )


def claims(plan: Plan, host: str) -> frozenset[str]:
    """Return what only one phase may have on a host: the ports it publishes, and names in the kernel."""
    ports = {f"TCP port {entry.port}" for entry in plan.published if entry.host == host}
    bridges = {f"link {tier.bridge}" for tier in plan.tiers_on(host)}
    services = plan.services_on(host)
    return frozenset(ports | bridges | {f"namespace {item.namespace}" for each in services for item in each.replicas})


DEFINITION = Definition(
    mark=MARK,
    ask=gather,
    build=build,
    claims=claims,
    # Programs before what they stand on, the guard last.
    kinds=(
        Kind((program.Program,), program.discover, states=program.states),
        Kind((file.TextFile, file.Directory, secret.PasswordFile), file.discover),
        Kind((postgres.Cluster, postgres.Database), postgres.discover),
        Kind((user.User,), user.discover),
        Kind((ip.Route,), ip.discover_routes),
        Kind((ip.Address,), ip.discover_addresses),
        Kind((link.Bridge, link.Veth), link.discover, link.remove_all),
        Kind((namespace.Namespace,), namespace.discover),
        Kind((sysctl.Sysctl,), sysctl.discover),
        Kind((tagged.Untagged,), tagged.discover),
        Kind((rules.Table,), rules.discover),
    ),
)
