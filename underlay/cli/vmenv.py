"""`./lab vm-env ...`: libvirt where none runs yet."""

from __future__ import annotations

import click

from underlay.cli.progress import Bar
from underlay.errors import Exit


@click.group("vm-env")
def vm_env() -> None:
    """Start libvirt on a machine where none runs, in a network of its own, and stop it again.

    For machines without systemd, such as a container. On a usual machine libvirt runs already, and this does nothing.
    Neither the machine's interfaces nor its libvirt files are touched. All that Vagrant does must then happen in that
    network: say `./lab vagrant ...` instead of `vagrant ...`.

    \b
    Example:
      ./lab vm-env start; ./lab vagrant up; ./lab vagrant destroy -f; ./lab vm-env stop
    """


@vm_env.command()
def start() -> None:
    """Start libvirt if no libvirt answers, and install what is missing to make virtual machines.

    \b
    Example:
      ./lab vm-env start
    """
    from underlay import needs, packages
    from underlay.box.build import missing_packages
    from underlay.hosts.vagrant import environment as vmenv
    from underlay.hosts.vagrant import places

    with Bar() as bar:
        if vmenv.is_wanted():
            wanted = (*needs.HOSTS, *needs.IMAGE, *needs.LIBVIRT_OF_OURS, *needs.VAGRANT, *missing_packages())
            packages.install_missing(wanted, bar, lambda text: click.echo(text, err=True))
        done = vmenv.start(bar)
    if done:
        click.echo(f"libvirt runs in a network of its own ({places.pin()}); use it with ./lab vagrant ...")
    elif vmenv.is_up():
        click.echo("libvirt runs already, in a network of its own; use it with ./lab vagrant ...")
    else:
        click.echo(f"a libvirt answers at {vmenv.SYSTEM_URI} already: nothing to do, say: ./lab vagrant up")


@vm_env.command()
@click.option("--force", is_flag=True, help="End virtual machines that still run.")
def stop(*, force: bool) -> None:
    """Stop the libvirt that `start` started, and remove all its files. Twice in a row is fine.

    \b
    Example:
      ./lab vm-env stop
    """
    from underlay.hosts.vagrant import environment as vmenv

    with Bar() as bar:
        done = vmenv.stop(force=force, progress=bar)
    click.echo("libvirt is stopped and its files are removed" if done else "none was started here: nothing to do")


@vm_env.command()
def status() -> int:
    """Say which libvirt there is and which guests it runs; exit 3 if there is none.

    \b
    Example:
      ./lab vm-env status
    """
    from underlay.hosts.namespace.state import MACHINE_S
    from underlay.hosts.vagrant import environment as vmenv
    from underlay.hosts.vagrant import places

    known = vmenv.record()
    if known is not None:
        for name in known.daemons:
            click.echo(f"{name}: {'running' if name in known.running() else 'ended'}")
        click.echo(f"network: {places.pin()}\nfiles: {known.state}\naddress: {places.own_uri()}")
    if not vmenv.answers(vmenv.uri(), timeout=MACHINE_S):
        click.echo(f"no libvirt answers at {vmenv.uri()}; start one: ./lab vm-env start")
        return int(Exit.NOT_READY)
    click.echo(f"libvirt answers at {vmenv.uri()}; guests: {', '.join(vmenv.guests()) or 'none'}")
    return int(Exit.GOOD)
