"""`./lab up`: from whatever is there to a lab with all phases on it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import click

from underlay.cli import images, status
from underlay.cli.context import Settings, pass_settings
from underlay.cli.progress import Bar
from underlay.errors import Exit, NotReady, Problem, Unforeseen
from underlay.hosts.base import Host
from underlay.hosts.find import NAMESPACE
from underlay.hosts.provisioning import provision
from underlay.phases import PHASES
from underlay.repository import REPOSITORY
from underlay.topology import Plan


@click.command()
@click.option("--no-phase", is_flag=True, help="Only the hosts, with nothing on them.")
@pass_settings
def up(settings: Settings, *, no_phase: bool) -> None:
    """Bring the lab up: install what is missing, build the image, start the hosts, converge the phases.

    May be run again at any time; what is there stays. The machine's own interfaces, rules and settings are not touched.

    \b
    Examples:
      ./lab up
      ./lab up --no-phase
      ./lab --plan other.yaml up      a second lab beside the first
    """
    from underlay import machine, needs, packages
    from underlay.hosts.namespace import labs as namespaces
    from underlay.hosts.namespace.state import store
    from underlay.image import build_image, use_image

    settings.only(NAMESPACE, "`up` starts namespace hosts only", "Vagrant starts its machines: ./lab vagrant up")
    started = time.monotonic()
    plan = settings.plan()
    for note in machine.collisions(plan):
        click.echo(f"note: {note}", err=True)
    with Bar() as bar:
        packages.install_missing((*needs.HOSTS, *needs.IMAGE), bar, lambda text: click.echo(text, err=True))
        image = build_image(progress=bar)
        use_image(image, plan.lab, store(plan.lab).directory)
        lab = namespaces.up(plan, image.rootfs, REPOSITORY, bar)
        if not no_phase:
            for phase in PHASES:
                images.provide(plan, lab.hosts, phase, bar)
                bar.step(f"converging {phase}")
                _converge(plan, tuple(lab.hosts.values()), phase)
    status.show(lab.plan, status.look(lab))
    click.echo(f"\nup in {time.monotonic() - started:.1f} s. Try:\n")
    for line in suggestions(plan, converged=not no_phase):
        click.echo(f"  {settings.spelled(line)}")


def _converge(plan: Plan, hosts: tuple[Host, ...], phase: str) -> None:
    """Converge all hosts in parallel; NotReady or Unforeseen, with what they said, if one of them did not."""
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda host: provision(plan, host, "converge", phase), hosts))
    failed = [
        Problem(host.name, f"{phase} did not converge:\n{said.stderr or said.stdout}", f"see: ./lab logs {host.name}")
        for host, said in zip(hosts, done, strict=True)
        if not said.ok
    ]
    if any(said.returncode == Exit.UNFORESEEN for said in done):
        raise Unforeseen(*failed)
    if failed:
        raise NotReady(*failed)


def suggestions(plan: Plan, *, converged: bool) -> tuple[str, ...]:
    """Return three commands to try."""
    first = plan.hosts[0].name
    if not converged:
        return (f"./lab shell {first}", f"./lab explain phase1 --host {first}", "./lab converge phase1")
    inside = plan.services[0].replicas[0].namespace
    host = plan.services[0].host
    if not plan.published:
        return (f"./lab exec {host} --in {inside} -- ip route", f"./lab explain phase1 --host {host}", "./lab test")
    entry = plan.published[0]
    visitor = next((item.name for item in plan.hosts if item.name != entry.host), entry.host)
    return (
        f"./lab exec {visitor} -- curl -si http://{entry.host}:{entry.port}/api/products",
        f"./lab exec {host} --in {inside} -- ip route",
        "./lab test",
    )
