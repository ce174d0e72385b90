"""What verbs share: the plan that was asked for, and the lab that is up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import click

from underlay.errors import InputError, Problem
from underlay.hosts.base import Host, Lab
from underlay.hosts.find import HOSTS_VARIABLE, LAB_VARIABLE, PLAN_VARIABLE, find, spelled
from underlay.phases import PHASES
from underlay.repository import REPOSITORY
from underlay.topology import Plan, across, differences, load_plan

#: What makes the hosts as the plan says, in every phase.
_CONVERGE = "; ".join(f"./lab converge {phase}" for phase in PHASES)
#: The environment variable by which a shell asks for completion.
COMPLETE_VARIABLE = "_LAB_COMPLETE"


@dataclass(frozen=True, slots=True)
class Settings:
    """The options before the verb; ``plan_path``, which is absolute, is None if none was given."""

    plan_path: Path | None
    kind: str | None = None
    """The kind of hosts that was asked for, or None for whatever is up."""

    @property
    def plan_file(self) -> Path:
        """The file of the plan: the one that was asked for, or that of this checkout."""
        return self.plan_path or REPOSITORY / "topology.yaml"

    def plan(self) -> Plan:
        """Read the plan; InputError shows all its mistakes."""
        return load_plan(self.plan_file)

    def lab(self) -> Lab:
        """Return the plan's lab; NotReady if it is not up, or up on hosts of two kinds and none was asked for."""
        return find(self.plan().lab, self.kind)

    def spelled(self, text: str) -> str:
        """Return a text whose commands carry the options that were given, so that they mean the same lab."""
        return spelled(text, self.plan_path, self.kind)

    def spelled_problem(self, problem: Problem) -> Problem:
        """Return a problem whose commands carry the options that were given."""
        return replace(problem, what=self.spelled(problem.what), hint=self.spelled(problem.hint))

    def handed_on(self, lab: Lab | None = None) -> Mapping[str, str]:
        """Return the environment variables by which another program means the same plan and, if it was found, lab."""
        kind = self.kind if lab is None else lab.kind
        # An empty variable is none: one of the caller's own must not lead to another lab.
        return {PLAN_VARIABLE: str(self.plan_file), HOSTS_VARIABLE: kind or "", LAB_VARIABLE: ""}

    def only(self, kind: str, what: str, instead: str) -> None:
        """Refuse hosts of another kind for a verb that only knows this one; InputError with the command to use."""
        if self.kind not in (None, kind):
            said = f"{what}, and {self.kind} hosts were asked for (by the option, or by {HOSTS_VARIABLE})"
            raise InputError(Problem(f"--hosts {self.kind}", said, instead))

    def stale(self, lab: Lab) -> Problem | None:
        """Say how the plan's file differs from the plan on record, and what makes it so; None if it does not."""
        keys = differences(lab.recorded, self.plan())
        if not keys:
            return None
        obstacle = lab.obstacle(self.plan())
        what = f"it differs from the plan that is up ({', '.join(keys)}), which is what the hosts are compared with"
        return Problem(str(self.plan_file), what, obstacle.hint if obstacle else f"make it so: {_CONVERGE}")

    def host(self, name: str) -> Host:
        """Return one host of the plan's lab; UsageError names the ones there are."""
        return chosen_host(self.lab(), name)


pass_settings = click.make_pass_decorator(Settings)


def chosen_host(lab: Lab, name: str) -> Host:
    """Return one host of a lab; UsageError names the ones there are."""
    if name not in lab.hosts:
        raise click.UsageError(f"there is no host {name}; the lab has {', '.join(lab.hosts)}")
    return lab.hosts[name]


def complete_host(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Offer the hosts of the plan."""
    return [host.name for host in _asked(context).plan().hosts if host.name.startswith(incomplete)]


def complete_namespace(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Offer the namespaces of the plan, of all phases."""
    plan = _asked(context).plan()
    names = [item.namespace for each in (plan, across(plan).plan) for _, item in each.replicas()]
    return [name for name in names if name.startswith(incomplete)]


def _asked(context: click.Context) -> Settings:
    path = context.find_root().params.get("plan_path")
    return Settings(path if isinstance(path, Path) else None)
