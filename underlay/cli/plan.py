"""`./lab plan ...`: what the plan comes to."""

from __future__ import annotations

import json

import click

from underlay.cli.context import Settings, pass_settings
from underlay.topology import plan_as_json


@click.group()
def plan() -> None:
    """Show what topology.yaml comes to."""


@plan.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything, derived values too, as JSON.")
@pass_settings
def show(settings: Settings, *, as_json: bool) -> None:
    """Check the plan and print what it comes to: hosts, tiers, replicas, flows.

    Every mistake in it is shown at once, with its line; the exit code is then 2.

    \b
    Examples:
      ./lab plan show
      ./lab plan show --json
      ./lab --plan other.yaml plan show
    """
    loaded = settings.plan()
    if as_json:
        click.echo(json.dumps(plan_as_json(loaded), indent=2))
        return
    from underlay.cli import tables

    tables.show(tables.hosts(loaded), tables.tiers(loaded), tables.services(loaded), tables.flows(loaded))
