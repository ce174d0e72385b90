"""A phase taken away and made again, twice: by its own explanation, run as a shell script, and by `converge`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acceptance.kernel import Snapshot, snapshot
from acceptance.provisioning import ONE_MORE, Report, command, phases_on, provision
from acceptance.suite.stage import Stage
from underlay.hosts.base import Host
from underlay.process import Completed

#: On a host of the lab, where root alone can write: root runs it.
_SCRIPT = "/run/explained.sh"
FORWARDING = "net.ipv4.ip_forward"


@dataclass(frozen=True, slots=True)
class Cycle:
    """One host, step by step: made by converge, removed, made by the script, removed, made by converge again.

    Before the first removal a killed program has left behind what it leaves.
    ``phases_left`` are those that the host itself says are on after the first removal. Before the script somebody gives
    the host settings of its own, which the phase changes (``Stage.own_settings``): ``own`` is the host then.
    ``programs_left`` are what is supervised after the first removal, but for what another phase has. ``kept`` is what
    of the phase's data was still on the disk after each removal.
    """

    made: Snapshot
    first_removal: Report
    phases_left: frozenset[str]
    removed: Snapshot
    programs_left: tuple[str, ...]
    own: Snapshot
    script: Completed
    explained: Snapshot
    check_after_script: Report
    second_removal: Report
    removed_again: Snapshot
    converged_again: Report
    made_again: Snapshot
    kept: tuple[str, ...]


def turn(stage: Stage) -> Mapping[str, Cycle]:
    """Go through the steps on each host that services run on; at the end it is as before, whatever happened."""
    hosts = stage.lab.hosts.items()
    found = {}
    for name, host in hosts:
        if stage.plan.services_on(name):
            with stage.watching(host):
                found[name] = _turn(stage, host)
    return found


def _settings(state: Snapshot) -> str:
    """Return the commands that give a host the settings it had."""
    forwards, policy = state.root.parameters[FORWARDING], state.policy("FORWARD")
    return f"sysctl -qw {FORWARDING}={forwards}; iptables -w -P FORWARD {policy}"


def _programs(host: Host, phase: str) -> tuple[str, ...]:
    """Return what supervisord says of each program that is not another phase's, by the mark in its configuration."""
    words = ["grep", "-rL", f"Made by Underlay, {phase}", "/etc/supervisor/conf.d"]
    others = {Path(path).stem for path in host.run(words, check=False).stdout.split()}
    said = host.run(["supervisorctl", "status"], check=False).stdout.splitlines()
    return tuple(line for line in said if line.split()[0] not in others)


def _there(host: Host, paths: Sequence[str]) -> tuple[str, ...]:
    """Return those of the paths that are there."""
    return tuple(host.run(["ls", "--directory", *paths], check=False).stdout.split()) if paths else ()


def _turn(stage: Stage, host: Host) -> Cycle:
    phase, timeouts = stage.phase, stage.plan.timeouts
    try:
        made = snapshot(host, files=True)
        data = stage.data(host)
        stage.leave_behind(host)
        first_removal = provision(host, "remove", phase)
        phases_left = phases_on(host, ONE_MORE)
        removed = snapshot(host, files=True)
        settings = _settings(removed)
        programs_left = _programs(host, phase)
        kept = _there(host, data)
        host.run(["sh", "-e", "-c", stage.own_settings])
        own = snapshot(host, files=True)
        # From a file: what stands in the script must not be taken for the input of its commands.
        text = host.run(command("explain", phase)).stdout
        host.run(["tee", _SCRIPT], stdin=text)
        limit = timeouts.command + timeouts.ready
        script = host.run(["sh", "-c", f"sh {_SCRIPT}; code=$?; rm {_SCRIPT}; exit $code"], check=False, timeout=limit)
        explained = snapshot(host, files=True)
        check_after_script = provision(host, "check", phase)
        data = stage.data(host)
        second_removal = provision(host, "remove", phase)
        removed_again = snapshot(host, files=True)
        kept += _there(host, data)
        host.run(["sh", "-e", "-c", settings])
    finally:
        converged_again = provision(host, "converge", phase)
    return Cycle(
        made,
        first_removal,
        phases_left,
        removed,
        programs_left,
        own,
        script,
        explained,
        check_after_script,
        second_removal,
        removed_again,
        converged_again,
        snapshot(host, files=True),
        kept,
    )
