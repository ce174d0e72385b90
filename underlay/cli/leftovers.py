"""`./lab leftovers ...`: what the machine holds, to compare before and after."""

from __future__ import annotations

import json
from pathlib import Path

import click

from underlay.errors import CheckFailed, InputError, Problem


@click.group()
def leftovers() -> None:
    """Compare what the machine holds before and after a lab.

    Namespaces, links, mounts, control groups, processes of labs, packet filter rules, network settings and our files,
    all read from the kernel.

    \b
    Example:
      ./lab leftovers save before.json; ./lab up; ./lab down; ./lab leftovers compare before.json
    """


@leftovers.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def save(file: Path) -> None:
    """Write down what the machine holds now.

    \b
    Example:
      ./lab leftovers save before.json
    """
    from underlay.hosts.leftovers import machine_snapshot, to_json

    text = to_json(machine_snapshot())
    try:
        file.write_text(text)
    except OSError as error:
        raise InputError(Problem(str(file), f"it cannot be written: {error.strerror}", "name another file")) from error


@leftovers.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def compare(file: Path) -> None:
    """Say what is new, gone or changed since; exit 1 if anything is.

    \b
    Example:
      ./lab leftovers compare before.json
    """
    from underlay.hosts.leftovers import diff, from_json, machine_snapshot

    try:
        before = from_json(file.read_text())
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InputError(
            Problem(str(file), f"it is no saved state: {error}", "save one: ./lab leftovers save FILE")
        ) from error
    found = diff(before, machine_snapshot())
    if found:
        raise CheckFailed(*(Problem("this machine", line) for line in found))
    click.echo("nothing is left: the machine is as it was")
