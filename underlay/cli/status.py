"""`./lab status`: what is there and what it does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import click

from underlay.cli import tables
from underlay.cli.context import Settings, pass_settings
from underlay.errors import Exit
from underlay.hosts.base import Host, Lab
from underlay.hosts.provisioning import plan_digest, provision
from underlay.phases import PHASES, WITH_IMAGES, WITH_SHOP
from underlay.topology import Plan, Service, differences, in_containers

#: What a replica does that is well; provisioning has another word for anything else.
RUNNING = "running"


@dataclass(frozen=True, slots=True)
class HostStatus:
    """What one host does: ``state`` up or off, and for each phase that is on what its replicas do, by name.

    ``crashed`` is whether the answer of the host was a fault of ours.
    """

    state: str
    phases: Mapping[str, Mapping[str, str]]
    crashed: bool = False


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@pass_settings
def status(settings: Settings, *, as_json: bool) -> int:
    """Show the lab's hosts, namespaces, services and addresses, and what each is doing.

    What is shown is the plan that is up. Exit 0 if all that should run does, 1 if something does not or the plan's file
    differs from that plan (a note says how), 3 if the lab is not up, 70 if a host's answer was a fault of ours.

    \b
    Examples:
      ./lab status
      ./lab status --json
    """
    lab = settings.lab()
    seen = look(lab)
    stale = settings.stale(lab)
    if as_json:
        hosts = {
            name: {"address": str(lab.plan.host(name).address.ip), "state": item.state, "phases": item.phases}
            for name, item in seen.items()
        }
        differs = list(differences(lab.recorded, settings.plan()))
        click.echo(json.dumps({"lab": lab.plan.lab, "plan_differs": differs, "hosts": hosts}, indent=2))
    else:
        show(lab.plan, seen)
    if stale is not None:
        click.echo(f"note: {settings.spelled_problem(stale)}", err=True)
    if any(item.crashed for item in seen.values()):
        return int(Exit.UNFORESEEN)
    return int(Exit.GOOD if stale is None and _well(lab.plan, seen) else Exit.CHECK_FAILED)


def look(lab: Lab) -> Mapping[str, HostStatus]:
    """Ask every host, in parallel."""

    def one(host: Host) -> HostStatus:
        if not host.running():
            return HostStatus("off", {})
        said = provision(lab.plan, host, "status")
        if said.returncode == Exit.UNFORESEEN:
            return HostStatus(f"up, but: {said.stderr.strip()}", {}, crashed=True)
        if not said.ok:
            return HostStatus("up, but its supervisor does not answer", {})
        answer = json.loads(said.stdout)
        told = answer["plan"] == plan_digest(lab.recorded)
        return HostStatus("up" if told else "up, but by another plan than that on record", answer["phases"])

    with ThreadPoolExecutor() as pool:
        return dict(zip(lab.hosts, pool.map(one, lab.hosts.values()), strict=True))


def show(plan: Plan, seen: Mapping[str, HostStatus]) -> None:
    """Print the tables of hosts and services."""
    states = {name: ", ".join((item.state, *(f"{phase} on" for phase in item.phases))) for name, item in seen.items()}
    tables.show(tables.hosts(plan, states), tables.services(plan, by_phase(plan, seen)))


def by_phase(plan: Plan, seen: Mapping[str, HostStatus]) -> Mapping[str, Mapping[tuple[str, str], str]]:
    """Return for each phase of the shop that is on anywhere what the replicas do, by the plan's host and name."""
    on = dict.fromkeys(phase for item in seen.values() for phase in item.phases if phase in WITH_SHOP)
    found: dict[str, dict[tuple[str, str], str]] = {}
    for phase in on:
        found[phase] = {}
        for service, replica in plan.replicas():
            state = seen[_home(plan, service, phase)].phases.get(phase, {}).get(replica.name)
            if state is not None:
                found[phase][service.host, replica.name] = state
    return found


def _home(plan: Plan, service: Service, phase: str) -> str:
    """Return the host that a service is on in a phase: Docker has all of them on one."""
    return in_containers(plan).host or service.host if phase in WITH_IMAGES else service.host


def _well(plan: Plan, seen: Mapping[str, HostStatus]) -> bool:
    if any(item.state != "up" for item in seen.values()):
        return False
    asked = (
        (seen[_home(plan, service, phase)].phases.get(phase), replica.name)
        for phase in PHASES
        if phase in WITH_SHOP
        for service, replica in plan.replicas()
    )
    # A phase that is not on has nothing to do.
    return all(states is None or states.get(name) == RUNNING for states, name in asked)
