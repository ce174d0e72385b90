"""Phase 3: across two hosts. Now: a tier stretched by a VXLAN that is made by hand."""

from __future__ import annotations

from provision.marks import Mark
from provision.phase3 import tunnel
from provision.phase3.facts import Facts, gather
from provision.phases import Definition
from provision.resource import Kind, Phase
from provision.resources import ip, link, namespace, neighbours, rules, sysctl, tagged, vxlan
from underlay.topology import Plan, across

MARK = Mark("phase3", 3)


def build(plan: Plan, host: str, facts: Facts) -> Phase:
    """Return phase 3 of one host. A host that the tunnel does not join has nothing to do."""
    stretched = across(plan)
    if host not in stretched.bridges:
        return Phase(MARK, ())
    return Phase(
        MARK,
        (
            tunnel.guard(stretched, host, MARK),
            tunnel.shown(),
            tunnel.bridge(stretched, host),
            tunnel.device(stretched, host, facts),
            tunnel.namespaces(stretched, host),
        ),
    )


def claims(plan: Plan, host: str) -> frozenset[str]:
    """Return what only one phase may have on a host: names in the kernel."""
    stretched = across(plan)
    namespaces = {f"namespace {name}" for name in stretched.namespaces(host)}
    return frozenset(namespaces | {f"link {name}" for name in stretched.links(host)})


DEFINITION = Definition(
    mark=MARK,
    ask=gather,
    build=build,
    claims=claims,
    # A forwarding table goes with its device, neighbours with their namespace; the guard last.
    kinds=(
        Kind((ip.Address,), ip.discover_addresses),
        Kind(
            (link.Bridge, link.Veth, vxlan.Vxlan, neighbours.Forwarding, neighbours.Behind),
            link.discover,
            link.remove_all,
        ),
        Kind((namespace.Namespace, neighbours.Neighbours), namespace.discover),
        Kind((sysctl.Sysctl,), sysctl.discover),
        Kind((tagged.Untagged,), tagged.discover),
        Kind((rules.Table,), rules.discover),
    ),
)
