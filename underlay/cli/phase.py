"""`./lab converge`, `check`, `remove` and `explain`: a phase on the lab's hosts, in parallel."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import click

from underlay.cli import images
from underlay.cli.context import Settings, chosen_host, complete_host, pass_settings
from underlay.cli.progress import Bar
from underlay.cli.status import look
from underlay.errors import Exit, InputError, NotReady, Problem
from underlay.hosts.base import Host, Lab
from underlay.hosts.provisioning import plan_digest, provision
from underlay.phases import PHASES, WITH_IMAGES
from underlay.process import Completed
from underlay.topology import in_containers

_PHASE = click.argument("phase", type=click.Choice(PHASES))
#: Stands for the replica behind a published port.
_ENTRY = "-"
_HOST = click.option(
    "--host", "only", metavar="HOST", multiple=True, shell_complete=complete_host,
    help="Only this host; may be given for several.",
)  # fmt: skip


@click.command()
@_PHASE
@_HOST
@click.option("--no-wait", is_flag=True, help="Do not wait until the programs serve.")
@pass_settings
def converge(settings: Settings, phase: str, only: tuple[str, ...], *, no_wait: bool) -> int:
    """Make the hosts as the plan says: apply what differs and nothing else.

    The plan is read again, so a changed topology.yaml takes effect: it is put on record and every host is told, then
    hosts converge. What hosts are started with (their names and addresses, the underlay, the domain) is refused:
    `./lab up` changes it. A second run says "0 changes".

    \b
    Examples:
      ./lab converge phase1
      ./lab converge phase1 --host host1
    """
    before = settings.lab()
    _chosen(before, only)
    lab = before.take(settings.plan())
    if phase in WITH_IMAGES:
        with Bar() as bar:
            images.provide(lab.plan, {host.name: host for host in _chosen(lab, only)}, phase, bar)
    code = _all(settings, lab, only, "converge", phase, *(("--no-wait",) if no_wait else ()))
    if only and lab.recorded != before.recorded:
        said = settings.spelled(
            f"the other hosts know the changed plan too, and follow it with: ./lab converge {phase}"
        )
        click.echo(f"note: {said}", err=True)
    if lab.recorded != before.recorded:
        on = {name for state in look(lab).values() for name in state.phases}
        for other in (name for name in PHASES if name in on and name != phase):
            said = settings.spelled(f"{other} is on, and follows the changed plan with: ./lab converge {other}")
            click.echo(f"note: {said}", err=True)
    return code


@click.command()
@_PHASE
@_HOST
@pass_settings
def check(settings: Settings, phase: str, only: tuple[str, ...]) -> int:
    """Say what differs from the phase, by name, without touching it; exit 1 if anything does.

    The hosts are compared with the plan that is up. That the plan's file differs from that one is a difference too.

    \b
    Example:
      ./lab exec host1 -- ip link set br-data down; ./lab check phase1
    """
    lab = settings.lab()
    code = _all(settings, lab, only, "check", phase, "--recorded", plan_digest(lab.recorded))
    stale = settings.stale(lab)
    if stale is not None:
        click.echo(f"  {settings.spelled_problem(stale)}")
    return code if stale is None else max(code, int(Exit.CHECK_FAILED))


@click.command()
@_PHASE
@_HOST
@pass_settings
def remove(settings: Settings, phase: str, only: tuple[str, ...]) -> int:
    """Take away all that the phase made, and nothing else.

    \b
    Example:
      ./lab remove phase1
    """
    return _all(settings, settings.lab(), only, "remove", phase)


@click.command()
@_PHASE
@_HOST
@click.option(
    "--under",
    metavar="[REPLICA]",
    is_flag=False,
    flag_value=_ENTRY,
    help="What Docker has made for a container, as it is now (phase2; without a name: the one that the world calls).",
)
@pass_settings
def explain(settings: Settings, phase: str, only: tuple[str, ...], under: str | None) -> int:
    """Print the phase as a commented shell script. Run on a host without the phase, it makes the same.

    \b
    Examples:
      ./lab explain phase1 --host host1 | less
      ./lab remove phase1 && ./lab explain phase1 --host host1 | ./lab exec host1 -- sh
      ./lab explain phase2 --under gateway-1      the commands that equal what Docker has made for it
    """
    lab = settings.lab()
    if under is None:
        said = ((host, provision(lab.plan, host, "explain", phase)) for host in _chosen(lab, only))
    else:
        host, name = _container(lab, only, under)
        said = ((host, provision(lab.plan, host, "explain", phase, "--under", name)) for host in (host,))
    code = max(_print(settings, host, script, raw=True) for host, script in said)
    stale = settings.stale(lab)
    if stale is not None:
        click.echo(f"note: {settings.spelled_problem(stale)}", err=True)
    return code


def _container(lab: Lab, only: tuple[str, ...], under: str) -> tuple[Host, str]:
    """Return the host of the containers, and the replica that is meant."""
    plan, where = lab.plan, in_containers(lab.plan).host
    if where is None:
        raise InputError(Problem("--under", "the plan has no services, so nobody has a container"))
    _chosen(lab, only)
    if set(only) - {where}:
        named = " ".join(f"--host {name}" for name in only)
        raise InputError(Problem(named, f"all containers are on {where}", f"--host {where}, or leave it out"))
    entries = [item.name for entry in plan.published for item in plan.service(entry.service).replicas]
    names = [*entries, *(item.name for _, item in plan.replicas())]
    return lab.hosts[where], names[0] if under == _ENTRY else under


def _chosen(lab: Lab, only: tuple[str, ...]) -> tuple[Host, ...]:
    """Return the hosts that are named, each once and in the plan's order; all of them if none is."""
    named = [chosen_host(lab, name) for name in only]
    return tuple(host for host in lab.hosts.values() if host in named or not only)


def _all(settings: Settings, lab: Lab, only: tuple[str, ...], *words: str) -> int:
    """Have all hosts do it, and return the worst exit code. NotReady at the end, if some host could not be asked."""
    hosts = _chosen(lab, only)
    code, problems = int(Exit.GOOD), list[Problem]()
    with ThreadPoolExecutor() as pool:
        started = [pool.submit(provision, lab.plan, host, *words) for host in hosts]
    for host, run in zip(hosts, started, strict=True):
        try:
            code = max(code, _print(settings, host, run.result()))
        except NotReady as error:
            problems += error.problems
    if problems and code <= int(Exit.NOT_READY):
        raise NotReady(*problems)
    for problem in problems:
        click.echo(f"error: {settings.spelled_problem(problem)}", err=True)
    return code


def _print(settings: Settings, host: Host, completed: Completed, *, raw: bool = False) -> int:
    """Pass on what a host said, and return its exit code; the greatest of several is the worst (see errors.Exit).

    NotReady if a signal ended it, as when its host is switched off.
    """
    # A script is passed on as it is; in all else there may be commands to paste.
    click.echo(completed.stdout if raw else settings.spelled(completed.stdout), nl=False)
    click.echo(settings.spelled(completed.stderr), nl=False, err=True)
    if completed.returncode < 0:
        name = signal.Signals(-completed.returncode).name
        hint = "run it again; if the host is off, bring it up first: ./lab up, or ./lab vagrant up"
        raise NotReady(Problem(host.name, f"provisioning was ended by {name}", hint))
    return completed.returncode
