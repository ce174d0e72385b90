"""The tables that verbs print."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table

from underlay.topology import Plan

#: Columns that the widest table may take. A narrower terminal folds lines by itself, which cuts nothing off.
_WIDEST = 160


def show(*tables: Table) -> None:
    """Print tables on standard output."""
    console = Console()
    console = Console(width=max(console.width, _WIDEST))
    for table in tables:
        console.print(table)


def hosts(plan: Plan, states: Mapping[str, str] | None = None) -> Table:
    """Return the hosts; with ``states``, what each is doing."""
    table = _table("host", "address", title=f"lab {plan.lab}")
    if states is not None:
        table.add_column("state")
    for host in plan.hosts:
        table.add_row(host.name, str(host.address.ip), *([states.get(host.name, "off")] if states is not None else []))
    return table


def tiers(plan: Plan) -> Table:
    """Return the tiers."""
    table = _table("tier", "subnet", "bridge", "gateway", "host")
    for tier in plan.tiers:
        table.add_row(tier.name, str(tier.subnet), tier.bridge, str(tier.gateway.ip), tier.host or "-")
    return table


def services(plan: Plan, states: Mapping[str, Mapping[tuple[str, str], str]] | None = None) -> Table:
    """Return the replicas; ``states`` has, for each phase that is on, what a replica does there, by host and name."""
    table = _table("service", "namespace", "host", "tier", "address", "published", *(states or {}))
    for service, replica in plan.replicas():
        published = [f"{entry.host}:{entry.port}" for entry in plan.published if entry.service == service.name]
        row = [service.name, replica.namespace, service.host, service.tier, f"{replica.ip}:{service.port}",
               ", ".join(published)]  # fmt: skip
        row += [known.get((service.host, replica.name), "absent") for known in (states or {}).values()]
        table.add_row(*row)
    return table


def flows(plan: Plan) -> Table:
    """Return who may connect to whom; all else is denied."""
    names = [service.name for service in plan.services]
    table = _table("may connect to", *names)
    for source in names:
        table.add_row(source, *("yes" if plan.allows(source, target) else "" for target in names))
    return table


def _table(*columns: str, title: str | None = None) -> Table:
    """Make a table that keeps every cell whole: an address that is cut short helps nobody."""
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", padding=(0, 1, 0, 0), pad_edge=False
    )
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ignore")
    return table
