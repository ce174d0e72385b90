"""Which lab the suite runs on: chosen by ``--lab`` and ``--hosts``, found once, asked for politely if there is none."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from underlay.errors import Exit, UnderlayError
from underlay.hosts.base import Lab
from underlay.hosts.namespace import labs as namespaces
from underlay.hosts.resident import ResidentLab
from underlay.hosts.vagrant import labs as vagrant
from underlay.topology import load_plan

#: Finds the lab of a name among the hosts of one kind; None if there is none. Another kind is one more entry.
Finder = Callable[[str], Lab | None]
VAGRANT, AUTO = "vagrant", "auto"
FINDERS: Mapping[str, Finder] = {"namespace": namespaces.find_lab, VAGRANT: vagrant.find_lab}
LAB_VARIABLE = "UNDERLAY_LAB"

_CHOICE = pytest.StashKey["Choice"]()


class Choice:
    """The lab that was chosen, and its kind."""

    def __init__(self, kind: str, lab: Lab) -> None:
        self.kind = kind
        self.lab = lab


def chosen(config: pytest.Config) -> Choice:
    """Return the lab to run on. Ends pytest, saying what to do, if there is none or more than one."""
    if _CHOICE not in config.stash:
        kind, lab = _choose(config)
        # Thousands of commands, and Python's start is dearer than most of them.
        resident = ResidentLab(lab)
        config.add_cleanup(resident.close)
        config.stash[_CHOICE] = Choice(kind, resident)
    return config.stash[_CHOICE]


def give_up(lines: Sequence[str]) -> NoReturn:
    """End pytest: the lab is not in a state to answer."""
    pytest.exit("\n".join(lines), returncode=int(Exit.NOT_READY))


def _choose(config: pytest.Config) -> tuple[str, Lab]:
    wanted = config.getoption("--hosts")
    kinds = list(FINDERS) if wanted == AUTO else [wanted]
    try:
        name = config.getoption("--lab") or os.environ.get(LAB_VARIABLE) or _planned_name(config.rootpath)
        found = {kind: lab for kind in kinds if kind in FINDERS and (lab := FINDERS[kind](name)) is not None}
        up = {kind: lab for kind, lab in found.items() if all(host.running() for host in lab.hosts.values())}
        why = vagrant.why_not(name) if wanted == VAGRANT and not found else None
    except UnderlayError as error:
        give_up([str(problem) for problem in error.problems])
    if why is not None:
        give_up([str(why)])
    if len(up) > 1:
        give_up([f"lab {name} is up on hosts of more than one kind", f"    hint: choose with --hosts: {', '.join(up)}"])
    for kind, lab in up.items():
        return kind, lab
    for lab in found.values():
        off = [host.name for host in lab.hosts.values() if not host.running()]
        give_up([f"lab {name}: {', '.join(off)} not running", "    hint: bring the lab up: ./lab up, or vagrant up"])
    what = f"no lab {name} is up" + ("" if wanted == AUTO else f" on {wanted} hosts")
    give_up([what, "    hint: bring one up: ./lab up, or vagrant up"])


def _planned_name(repository: Path) -> str:
    return load_plan(Path(os.environ.get("UNDERLAY_PLAN") or repository / "topology.yaml")).lab
