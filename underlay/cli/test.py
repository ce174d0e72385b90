"""`underlay test`: every test environment of tox.ini that this machine can run, and why not the others."""

from __future__ import annotations

import sys

import click

from underlay.cli.context import PHASES, Settings, pass_settings
from underlay.errors import Exit, NotReady
from underlay.process import attach
from underlay.repository import REPOSITORY

#: The environments of tox.ini that need no host.
_WITHOUT_HOSTS = ("lint", "unit")


@click.command()
@click.argument("environments", nargs=-1, metavar="[ENVIRONMENT]...")
@pass_settings
def test(settings: Settings, environments: tuple[str, ...]) -> int:
    """Run every test that this machine can run, and list what could not run and why.

    ENVIRONMENT is one of tox.ini's: lint, unit, phase1. Each also runs by itself with `tox -e`. Exit 0 if all that
    ran is good, 1 if a test failed, 3 if the lab is not up although this machine can hold it.

    \b
    Examples:
      ./lab test
      ./lab test unit phase1
    """
    wanted = environments or (*_WITHOUT_HOSTS, *PHASES)
    unknown = [name for name in wanted if name not in (*_WITHOUT_HOSTS, *PHASES)]
    if unknown:
        raise click.UsageError(
            f"there is no environment {', '.join(unknown)}; choose from {', '.join(_WITHOUT_HOSTS + PHASES)}"
        )
    obstacle, possible = _obstacle(settings)
    able = [name for name in wanted if name in _WITHOUT_HOSTS or obstacle is None]
    tox = (sys.executable, "-P", "-m", "tox", "run", "--root", str(REPOSITORY), "-e", ",".join(able))
    code = attach(tox, apart=True) if able else 0
    for name in (name for name in wanted if name not in able):
        click.echo(f"not run: {name}: {obstacle}", err=True)
    if code:
        return int(Exit.CHECK_FAILED)
    return int(Exit.NOT_READY if obstacle and possible and len(able) < len(wanted) else Exit.GOOD)


def _obstacle(settings: Settings) -> tuple[str | None, bool]:
    """Return why tests on hosts cannot run, or None; and whether this machine could hold a lab."""
    from underlay.hosts.namespace import labs as namespaces

    try:
        settings.lab()
    except NotReady as error:
        problems = namespaces.preflight()
        if problems:
            return "; ".join(str(problem) for problem in problems), False
        return str(error), True
    return None, True
