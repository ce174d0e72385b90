"""What a virtual machine is given by the workstation: files that Vagrant copies to it with the repository.

All of it is readable by its owner alone, here and there, and reaches the machine over SSH as files: the lab's secret is
on no command line and in no script. ``provision.host.receive`` puts it where hosts look for it.
"""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from underlay import durable
from underlay.errors import Problem
from underlay.hosts import layout
from underlay.topology import Plan, differences, needing_a_start, render_plan

#: How many times longer than the plan says hosts may take whose processors are imitated by software.
EMULATED = 5
#: Names in the directory of one host; on the host the same names are below /etc/underlay.
SECRET, PLAN, IDENTITY, NAMES = "secret", "topology.yaml", "host.json", "hosts"


def prepare(directory: Path, handover: Path, plan: Plan, *, emulated: bool = False) -> None:
    """Write for every host of the plan what it is given, below ``handover``; ``directory`` is what stays here.

    The secret is made once and stays. ``emulated`` hosts are told to be patient.
    """
    for path in (directory, handover):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
    text = render_plan(plan)
    secret = _secret(directory / SECRET)
    durable.replace(directory / PLAN, text, mode=0o600)
    names = [(host.name, host.address.ip) for host in plan.hosts]
    patience = EMULATED if emulated else 1
    for host in plan.hosts:
        own = handover / host.name
        own.mkdir(exist_ok=True, mode=0o700)
        durable.replace(own / SECRET, secret, mode=0o600)
        durable.replace(own / PLAN, text)
        durable.replace(own / IDENTITY, layout.identity_file(plan.lab, host.name, "vagrant", patience))
        durable.replace(own / NAMES, layout.hosts_file(host.name, plan.domain, names))
    for own in handover.iterdir():
        if own.name not in {host.name for host in plan.hosts}:
            shutil.rmtree(own)


def moved(before: Plan, plan: Plan) -> Problem | None:
    """Say what machines would have to start anew for, if the plan on record (``before``) were another; None if not."""
    keys = needing_a_start(differences(before, plan))
    what = f"its hosts must start anew for what the plan changes: {', '.join(keys)}"
    hint = "start them with the changed plan: ./lab vagrant reload --provision"
    return Problem(f"lab {before.lab}", what, hint) if keys else None


def replan(directory: Path, handover: Path, text: str) -> None:
    """Put another plan on record, and into what hosts are handed over the next time."""
    durable.replace(directory / PLAN, text, mode=0o600)
    for own in handover.iterdir():
        durable.replace(own / PLAN, text)


def forget(*directories: Path) -> None:
    """Remove all of it; no error if there is none."""
    for directory in directories:
        if directory.exists():
            shutil.rmtree(directory)


def _secret(path: Path) -> str:
    if not path.exists():
        durable.replace(path, secrets.token_hex(32), mode=0o600)
    return path.read_text()
