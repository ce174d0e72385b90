"""`./lab down`: leave nothing."""

from __future__ import annotations

import click

from underlay.cli.context import Settings, pass_settings
from underlay.cli.progress import Bar
from underlay.errors import InputError, Problem
from underlay.hosts.find import NAMESPACE


@click.command()
@click.argument("lab", required=False)
@pass_settings
def down(settings: Settings, lab: str | None) -> None:
    """Remove the lab: hosts, their disks, the wire between them. Twice in a row is fine.

    LAB is the lab's name; without it the plan says which. It works without the plan, after a crash, and in the middle
    of an `up` that was killed.

    \b
    Examples:
      ./lab down
      ./lab down underlay
    """
    from underlay.hosts.namespace import labs as namespaces

    settings.only(
        NAMESPACE, "`down` removes namespace hosts only", "Vagrant removes its machines: ./lab vagrant destroy -f"
    )
    name = lab or _name(settings, namespaces.list_labs())
    with Bar() as bar:
        there = namespaces.down(name, bar)
    click.echo(f"lab {name}: removed" if there else f"lab {name}: nothing to do")


def _name(settings: Settings, labs: tuple[str, ...]) -> str:
    """Return the plan's lab or, when the plan cannot be read any more, the only lab there is."""
    try:
        return settings.plan().lab
    except InputError as error:
        if len(labs) == 1:
            return labs[0]
        found = f"labs on this machine: {', '.join(labs)}" if labs else "there is no lab on this machine"
        hint = f"{found}; name one: ./lab down NAME"
        raise InputError(*error.problems, Problem("", "the plan does not say which lab", hint)) from error
