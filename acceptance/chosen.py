"""Which lab the suite runs on: chosen by options or variables, found once, asked for politely if there is none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from underlay.errors import Exit, InputError, NotReady, Problem, UnderlayError
from underlay.hosts.base import Lab
from underlay.hosts.find import HOSTS_VARIABLE, KINDS, LAB_VARIABLE, PLAN_VARIABLE, find, spelled
from underlay.hosts.resident import ResidentLab
from underlay.topology import differences, load_plan

#: What the option says for whatever kind is up.
AUTO = "auto"
_LAB = pytest.StashKey[Lab]()


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for: a lab's name and the kind of its hosts, and the plan's file; None is whatever there is."""

    lab: str | None
    kind: str | None
    plan: Path | None

    def find(self, repository: Path) -> Lab:
        """Return the lab, with all of its hosts on; the plan's file is that of the repository if nothing names a lab.

        NotReady when it is not there, was brought up with another plan than the one that named it, or the wishes
        contradict each other; InputError when there is no such kind of hosts, or the plan has mistakes.
        """
        if self.kind not in (None, *KINDS):
            hint = f"one of: {AUTO}, {', '.join(KINDS)}"
            raise InputError(Problem(HOSTS_VARIABLE, f"there is no kind of hosts {self.kind}", hint))
        if self.lab is not None and self.plan is None:
            return find(self.lab, self.kind, all_on=True)
        file = self.plan or repository / "topology.yaml"
        plan = load_plan(file)
        if self.lab not in (None, plan.lab):
            what = f"this plan is of lab {plan.lab}, and lab {self.lab} was asked for"
            hint = f"leave out one of --lab (or {LAB_VARIABLE}) and {PLAN_VARIABLE}"
            raise NotReady(Problem(str(file), what, hint))
        lab = find(plan.lab, self.kind, all_on=True)
        keys = differences(lab.recorded, plan)
        if keys:
            obstacle = lab.obstacle(plan)
            hint = obstacle.hint if obstacle else "make it so: ./lab converge phase1"
            what = f"it differs from the plan that lab {plan.lab} is up with ({', '.join(keys)})"
            raise NotReady(Problem(str(file), what, hint))
        return lab


def chosen(config: pytest.Config) -> Lab:
    """Return the lab to run on. Ends pytest, saying what to do, if there is none or it is not clear which."""
    if _LAB not in config.stash:
        # Thousands of commands, and Python's start is dearer than most of them.
        resident = ResidentLab(_choose(config))
        config.add_cleanup(resident.close)
        config.stash[_LAB] = resident
    return config.stash[_LAB]


def wish(config: pytest.Config) -> Wish:
    """Return what was asked for: an option counts before its variable, and an empty variable is none."""
    plan, kind = os.environ.get(PLAN_VARIABLE), config.getoption("--hosts") or os.environ.get(HOSTS_VARIABLE)
    return Wish(
        lab=config.getoption("--lab") or os.environ.get(LAB_VARIABLE) or None,
        kind=None if kind in (None, "", AUTO) else str(kind),
        plan=Path(plan).absolute() if plan else None,
    )


def give_up(config: pytest.Config, lines: Sequence[str], code: Exit = Exit.NOT_READY) -> NoReturn:
    """End pytest: the lab is not in a state to answer, or what ``code`` says.

    Commands are told so that they mean the lab asked for.
    """
    asked = wish(config)
    pytest.exit(spelled("\n".join(lines), asked.plan, asked.kind), returncode=int(code))


def _choose(config: pytest.Config) -> Lab:
    try:
        return wish(config).find(config.rootpath)
    except UnderlayError as error:
        give_up(config, [str(problem) for problem in error.problems])
