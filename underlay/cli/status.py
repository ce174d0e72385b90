"""`underlay status`: what is there and what it does."""

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
from underlay.hosts.provisioning import provision
from underlay.topology import Plan


@dataclass(frozen=True, slots=True)
class HostStatus:
    """What one host does: ``state`` up or off, the phases that are on, and its programs' states by name.

    ``crashed`` is whether the answer of the host was a fault of ours.
    """

    state: str
    phases: tuple[str, ...]
    programs: Mapping[str, str]
    crashed: bool = False


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@pass_settings
def status(settings: Settings, *, as_json: bool) -> int:
    """Show the lab's hosts, namespaces, services and addresses, and what each is doing.

    Exit 0 if all that should run does, 1 if something does not, 3 if the lab is not up, 70 if a host's answer was a
    fault of ours.

    \b
    Examples:
      ./lab status
      ./lab status --json
    """
    lab = settings.lab()
    seen = look(lab)
    if as_json:
        hosts = {
            name: {"address": str(lab.plan.host(name).address.ip), "state": item.state, "phases": list(item.phases),
                   "programs": dict(item.programs)}
            for name, item in seen.items()
        }  # fmt: skip
        click.echo(json.dumps({"lab": lab.plan.lab, "hosts": hosts}, indent=2))
    else:
        show(lab.plan, seen)
    if any(item.crashed for item in seen.values()):
        return int(Exit.UNFORESEEN)
    return int(Exit.GOOD if _well(lab.plan, seen) else Exit.CHECK_FAILED)


def look(lab: Lab) -> Mapping[str, HostStatus]:
    """Ask every host, in parallel."""

    def one(host: Host) -> HostStatus:
        if not host.running():
            return HostStatus("off", (), {})
        said = provision(lab.plan, host, "status")
        if said.returncode == Exit.UNFORESEEN:
            return HostStatus(f"up, but: {said.stderr.strip()}", (), {}, crashed=True)
        if not said.ok:
            return HostStatus("up, but its supervisor does not answer", (), {})
        answer = json.loads(said.stdout)
        return HostStatus("up", tuple(answer["phases"]), answer["programs"])

    with ThreadPoolExecutor() as pool:
        return dict(zip(lab.hosts, pool.map(one, lab.hosts.values()), strict=True))


def show(plan: Plan, seen: Mapping[str, HostStatus]) -> None:
    """Print the tables of hosts and services."""
    states = {name: ", ".join((item.state, *(f"{phase} on" for phase in item.phases))) for name, item in seen.items()}
    programs = {(host, name): state.lower() for host, item in seen.items() for name, state in item.programs.items()}
    tables.show(tables.hosts(plan, states), tables.services(plan, programs))


def _well(plan: Plan, seen: Mapping[str, HostStatus]) -> bool:
    if any(item.state != "up" for item in seen.values()):
        return False
    return all(
        seen[service.host].programs.get(replica.name) == "RUNNING"
        for service, replica in plan.replicas()
        if seen[service.host].phases
    )
