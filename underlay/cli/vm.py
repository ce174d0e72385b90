"""`./lab vm ...`: the steps that the Vagrantfile calls. A person says `vagrant up`."""

from __future__ import annotations

import os

import click

from underlay.cli import status
from underlay.cli.context import Settings, pass_settings
from underlay.errors import CheckFailed, NotReady, Problem
from underlay.hosts.find import VAGRANT
from underlay.process import attach
from underlay.repository import REPOSITORY
from underlay.topology import Plan

_PROVIDER = click.option("--provider", required=True, metavar="NAME", help="Vagrant's name of what runs the machines.")
_HOST = click.argument("host")


@click.group()
@pass_settings
def vm(settings: Settings) -> None:
    """Do the steps that the Vagrantfile calls before and after Vagrant's own."""
    settings.only(VAGRANT, "Vagrant makes virtual machines only", "start namespace hosts: ./lab up")


@vm.command()
@click.option("--emulated", is_flag=True, help="Their processors are imitated by software.")
@click.option("--anew", is_flag=True, help="Those that run will be started anew.")
@pass_settings
def prepare(settings: Settings, *, emulated: bool, anew: bool) -> None:
    """Write what the hosts are given: plan, secret, names. Refused for what only a start would give to those that run.

    Exit 3, with nothing written, if it is refused.
    """
    from underlay.hosts.vagrant import handover
    from underlay.hosts.vagrant.labs import forget_connections, handover_directory, own_directory, refuse_moved

    plan = settings.plan()
    if not anew:
        refuse_moved(plan)
    forget_connections()  # a machine that is started anew may be reached otherwise
    handover.prepare(own_directory(), handover_directory(), plan, emulated=emulated)


@vm.command()
@_PROVIDER
@pass_settings
def check(settings: Settings, provider: str) -> None:
    """Say everything that keeps the hosts from starting; exit 3 if anything does."""
    from underlay.hosts.vagrant import check as vmcheck

    plan = settings.plan()
    vmcheck.check(plan, provider, _made(plan))


@vm.command()
@_PROVIDER
@_HOST
@pass_settings
def clean(settings: Settings, provider: str, host: str) -> None:
    """Remove what is of no use once the last machine was destroyed."""
    from underlay.hosts.vagrant import check as vmcheck
    from underlay.hosts.vagrant import handover
    from underlay.hosts.vagrant.labs import forget_connections, handover_directory, own_directory

    plan = settings.plan()
    remaining = [name for name in _made(plan) if name != host]
    if remaining:
        return
    if provider == "libvirt":
        for name in vmcheck.clean(plan, remaining):
            click.echo(f"removed the box's copy in libvirt: {name}")
    forget_connections()
    handover.forget(own_directory(), handover_directory())


@vm.command()
@pass_settings
def left(settings: Settings) -> None:
    """Say what libvirt still holds of the lab; exit 1 if anything."""
    from underlay.hosts.vagrant import check as vmcheck

    problems = vmcheck.unreachable()
    if problems:
        raise NotReady(*problems)
    found = vmcheck.left(settings.plan())
    if found:
        raise CheckFailed(*(Problem("libvirt", f"{item} is still there") for item in found))
    click.echo("libvirt holds nothing of the lab")


@vm.command()
@pass_settings
def summary(settings: Settings) -> None:
    """Show what runs, and what to try."""
    from underlay.cli.up import suggestions
    from underlay.hosts.vagrant import labs as vagrant

    lab = vagrant.find_lab(settings.plan().lab)
    if lab is None:
        return  # only one of the machines was brought up
    seen = status.look(lab)
    status.show(lab.plan, seen)
    click.echo("\nTry:\n")
    for line in suggestions(lab.plan, converged=any(item.phases for item in seen.values())):
        click.echo(f"  {settings.spelled(line)}")


@vm.command("post-mortem")
@pass_settings
def post_mortem(settings: Settings) -> int:
    """Say what can be known of machines that did not come up; exit 3 if one runs and cannot be reached."""
    from underlay.hosts.vagrant import check as vmcheck
    from underlay.hosts.vagrant import environment as vmenv
    from underlay.hosts.vagrant.hypervisors import hypervisors
    from underlay.hosts.vagrant.labs import dot_directory, own_directory, recorded

    if vmenv.is_up() and not vmenv.is_inside():
        again = vmenv.inside((str(REPOSITORY / "lab"), "vm", "post-mortem"))
        return attach(again, env={**os.environ, **settings.handed_on()}, where="vm-env")
    plan = settings.plan()
    made = recorded(dot_directory(), [host.name for host in plan.hosts])
    box = os.environ.get("UNDERLAY_BOX")
    if box and not made:
        hint = "unset it: our own box is built and added by itself; or see: vagrant box list"
        raise NotReady(Problem("UNDERLAY_BOX", f"no machine could be made from the box {box}", hint))
    if any(provider != "libvirt" for provider, _ in made.values()) or vmcheck.unreachable():
        return 0
    libvirt = hypervisors(own_directory())["libvirt"]
    consoles = {host.name: path for host in plan.hosts if (path := libvirt.console(plan.lab, host.name)) is not None}
    problems = vmcheck.post_mortem(plan, consoles)
    if problems:
        raise NotReady(*problems)
    return 0


def _made(plan: Plan) -> list[str]:
    from underlay.hosts.vagrant.labs import dot_directory, recorded

    return list(recorded(dot_directory(), [host.name for host in plan.hosts]))
