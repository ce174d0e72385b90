"""`./lab vagrant ...`: Vagrant where its guests can be reached."""

from __future__ import annotations

import os

import click

from underlay.cli.context import Settings, pass_settings
from underlay.hosts.find import VAGRANT
from underlay.process import attach
from underlay.repository import REPOSITORY


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@pass_settings
def vagrant(settings: Settings, arguments: tuple[str, ...]) -> int:
    """Run vagrant with these words in this checkout, in the network that `vm-env start` made if there is one.

    \b
    Examples:
      ./lab vagrant up
      ./lab vagrant ssh host1
      ./lab vagrant destroy -f
    """
    from underlay.hosts.vagrant import cli as vagrantcli
    from underlay.hosts.vagrant import environment as vmenv

    settings.only(VAGRANT, "Vagrant makes virtual machines only", "start namespace hosts: ./lab up")
    command = vagrantcli.argv(arguments)
    os.chdir(REPOSITORY)
    return attach(command, env={**vmenv.environment(), **settings.handed_on()}, where="vagrant")
