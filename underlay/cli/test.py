"""`./lab test`: every test environment of tox.ini that this machine can run, and why not the others."""

from __future__ import annotations

import os
import sys

import click

from underlay.cli.context import Settings, pass_settings
from underlay.errors import Exit, NotReady
from underlay.hosts.base import Lab
from underlay.phases import PHASES
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
    ran is good, 1 if a test failed, 3 if the lab is not up although this machine can hold it, or is up with another
    plan than the file says.

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
    lab, obstacle, possible = _look(settings)
    able = [name for name in wanted if name in _WITHOUT_HOSTS or obstacle is None]
    # By its file: tox would look for one where the caller is.
    tox = (sys.executable, "-P", "-m", "tox", "run", "--conf", str(REPOSITORY / "tox.ini"), "-e", ",".join(able))
    code = attach(tox, env={**os.environ, **settings.handed_on(lab)}, apart=True) if able else 0
    for name in (name for name in wanted if name not in able):
        click.echo(f"not run: {name}: {settings.spelled(obstacle or '')}", err=True)
    if code:
        return int(Exit.CHECK_FAILED)
    return int(Exit.NOT_READY if obstacle and possible and len(able) < len(wanted) else Exit.GOOD)


def _look(settings: Settings) -> tuple[Lab | None, str | None, bool]:
    """Return the lab or why tests on hosts cannot run; and whether this machine could hold a lab."""
    from underlay.hosts.namespace import labs as namespaces

    try:
        lab = settings.lab()
        stale = settings.stale(lab)
        return lab, None if stale is None else str(stale), True
    except NotReady as error:
        problems = namespaces.preflight()
        if problems:
            return None, "; ".join(str(problem) for problem in problems), False
        return None, str(error), True
