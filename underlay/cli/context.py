"""What verbs share: the plan that was asked for, and the lab that is up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from underlay.errors import NotReady, Problem
from underlay.hosts.base import Host, Lab
from underlay.repository import REPOSITORY
from underlay.topology import Plan, load_plan

#: Kinds of hosts.
KINDS = ("namespace", "vagrant")
#: The environment variable by which a shell asks for completion.
COMPLETE_VARIABLE = "_LAB_COMPLETE"


@dataclass(frozen=True, slots=True)
class Settings:
    """The options before the verb; ``plan_path`` is None if none was given."""

    plan_path: Path | None
    kind: str | None = None
    """The kind of hosts that was asked for, or None for whatever is up."""

    def plan(self) -> Plan:
        """Read the plan; InputError shows all its mistakes."""
        return load_plan(self.plan_path or REPOSITORY / "topology.yaml")

    def lab(self) -> Lab:
        """Return the plan's lab; NotReady if it is not up, or up on hosts of two kinds and none was asked for."""
        from underlay.hosts.namespace import labs as namespaces
        from underlay.hosts.vagrant import labs as vagrant

        name = self.plan().lab
        finders = {"namespace": namespaces.find_lab, "vagrant": vagrant.find_lab}
        found = {
            kind: lab for kind, find in finders.items() if self.kind in (None, kind) and (lab := find(name)) is not None
        }
        if not found and self.kind == "vagrant" and (problem := vagrant.why_not(name)) is not None:
            raise NotReady(problem)
        if not found:
            how = "./lab up" if self.kind == "namespace" else "./lab up, or vagrant up"
            raise NotReady(Problem(f"lab {name}", "it is not up", f"bring it up: {how}"))
        if len(found) > 1:
            hint = f"choose with --hosts: {', '.join(found)}"
            raise NotReady(Problem(f"lab {name}", "it is up on hosts of more than one kind", hint))
        return next(iter(found.values()))

    def host(self, name: str) -> Host:
        """Return one host of the plan's lab; UsageError names the ones there are."""
        hosts = self.lab().hosts
        if name not in hosts:
            raise click.UsageError(f"there is no host {name}; the lab has {', '.join(hosts)}")
        return hosts[name]


pass_settings = click.make_pass_decorator(Settings)


def complete_host(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Offer the hosts of the shipped plan."""
    return [host.name for host in Settings(None).plan().hosts if host.name.startswith(incomplete)]


def complete_namespace(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Offer the namespaces of the shipped plan."""
    return [item.namespace for _, item in Settings(None).plan().replicas() if item.namespace.startswith(incomplete)]
