"""The host's link to the other hosts, which must be asked for: what it is called is not the plan's affair."""

from __future__ import annotations

from provision.kernel.network import Network
from underlay.errors import Problem
from underlay.topology import Plan


def underlay_link(plan: Plan, host: str, network: Network) -> str | None:
    """Return the link that carries a host's underlay address; None if none does."""
    view = network.root()
    return next((name for name in view.links if plan.host(host).address in view.addresses_of(name)), None)


def no_underlay(plan: Plan, host: str) -> Problem:
    """Return what to say then."""
    hint = "is this the host, and the plan, you mean?"
    return Problem(host, f"no link has the address {plan.host(host).address}", hint)
