"""`underlay converge`, `check`, `remove` and `explain`: a phase on the lab's hosts, in parallel."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import click

from underlay.cli.context import PHASES, Settings, complete_host, pass_settings
from underlay.errors import Exit, Problem
from underlay.hosts.base import Host
from underlay.hosts.provisioning import provision, tell_plan
from underlay.process import Completed
from underlay.topology import Plan

_PHASE = click.argument("phase", type=click.Choice(PHASES))
_HOST = click.option("--host", "only", metavar="HOST", shell_complete=complete_host, help="Only this host.")


@click.command()
@_PHASE
@_HOST
@click.option("--no-wait", is_flag=True, help="Do not wait until the programs serve.")
@pass_settings
def converge(settings: Settings, phase: str, only: str | None, *, no_wait: bool) -> int:
    """Make the hosts as the plan says: apply what differs and nothing else.

    The plan is read again, so a changed topology.yaml takes effect. A second run says "0 changes".

    \b
    Examples:
      ./lab converge phase1
      ./lab converge phase1 --host host1
    """
    lab = settings.lab()
    plan = settings.plan()
    chosen = _chosen(settings, only)
    tell_plan(lab, plan)
    return _all(lab.plan, chosen, "converge", phase, *(("--no-wait",) if no_wait else ()))


@click.command()
@_PHASE
@_HOST
@pass_settings
def check(settings: Settings, phase: str, only: str | None) -> int:
    """Say what differs from the phase, by name, without touching it; exit 1 if anything does.

    \b
    Example:
      ./lab exec host1 -- ip link set br-data down; ./lab check phase1
    """
    return _all(settings.lab().plan, _chosen(settings, only), "check", phase)


@click.command()
@_PHASE
@_HOST
@pass_settings
def remove(settings: Settings, phase: str, only: str | None) -> int:
    """Take away all that the phase made, and nothing else.

    \b
    Example:
      ./lab remove phase1
    """
    return _all(settings.lab().plan, _chosen(settings, only), "remove", phase)


@click.command()
@_PHASE
@_HOST
@pass_settings
def explain(settings: Settings, phase: str, only: str | None) -> int:
    """Print the phase as a commented shell script. Run on a host without the phase, it makes the same.

    \b
    Examples:
      ./lab explain phase1 --host host1 | less
      ./lab remove phase1 && ./lab explain phase1 --host host1 | ./lab exec host1 -- sh
    """
    chosen = _chosen(settings, only)
    plan = settings.lab().plan
    return max(_print(host, provision(plan, host, "explain", phase)) for host in chosen)


def _chosen(settings: Settings, only: str | None) -> tuple[Host, ...]:
    return tuple(settings.lab().hosts.values()) if only is None else (settings.host(only),)


def _all(plan: Plan, hosts: Iterable[Host], *words: str) -> int:
    asked = tuple(hosts)
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda host: provision(plan, host, *words), asked))
    return max((_print(host, said) for host, said in zip(asked, done, strict=True)), default=int(Exit.GOOD))


def _print(host: Host, completed: Completed) -> int:
    """Pass on what a host said, and return its exit code; the greatest of several is the worst (see errors.Exit)."""
    click.echo(completed.stdout, nl=False)
    click.echo(completed.stderr, nl=False, err=True)
    if completed.returncode >= 0:
        return completed.returncode
    name = signal.Signals(-completed.returncode).name
    click.echo(f"error: {Problem(host.name, f'provisioning was ended by {name}', 'run it again')}", err=True)
    return 128 - completed.returncode
