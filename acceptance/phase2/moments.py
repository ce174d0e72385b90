"""Two phases while one of them goes, crashes and starts: who gets through meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from acceptance.phase2.knocking import knocking, steady
from acceptance.phase2.stage import InContainers
from acceptance.provisioning import Report, provision
from acceptance.suite.knocking import Knocking
from acceptance.suite.stage import members
from underlay.wait import NotYet, until

_FIRST = "phase1"


@dataclass(frozen=True, slots=True)
class Moments:
    """What came of the knocking while Docker was started again and crashed, phase 1 went and came, the host booted.

    ``reports`` are those of the runs of provisioning meanwhile, and after the boot.
    """

    reports: Mapping[str, Report]
    crashes: Knocking
    phase1: Knocking
    booted: Knocking


def healthy(stage: InContainers, deadline_s: float) -> None:
    """Wait until each container says that it is."""
    names = [member.name for member in members(stage.plan)]

    def probe() -> bool | NotYet:
        try:
            said = stage.inspect(names)
        except Exception as error:
            return NotYet(str(error)[-200:])
        states = {name: health(item) for name, item in said.items()}
        bad = {name: state for name, state in states.items() if state != "healthy"}
        return NotYet(str(bad)) if bad else True

    until(probe, deadline_s=deadline_s, what="the health of all containers", where=str(stage.containers.host))


def health(said: Mapping[str, object] | None) -> str:
    """Return what Docker says of a container's health, by what it says of the container."""
    state = said.get("State") if said else None
    health = state.get("Health") if isinstance(state, Mapping) else None
    return str(health.get("Status")) if isinstance(health, Mapping) else "not there"


def tell(stage: InContainers) -> Moments:
    """Go through it all on the host of the containers; both phases are on it afterwards."""
    name = stage.containers.host
    assert name is not None
    host, ready = stage.lab.hosts[name], stage.plan.timeouts.ready
    reports: dict[str, Report] = {}
    with knocking(stage, host, steady(stage)) as crashes:
        host.run(["supervisorctl", "restart", "docker"], timeout=ready)
        healthy(stage, ready)
        for program in ("dockerd", "containerd"):
            host.run(["pkill", "--signal", "KILL", "--exact", program])
            healthy(stage, ready)
    try:
        with knocking(stage, host, []) as phase1:
            reports["remove phase1"] = provision(host, "remove", _FIRST)
            reports["converge phase1"] = provision(host, "converge", _FIRST)
            reports["check phase2"] = provision(host, "check", stage.phase)
        host.power_off()
    finally:
        host.power_on()
        # Whatever happened: both are on it when they are asked for again.
        with knocking(stage, host, []) as booted:
            for phase in (_FIRST, stage.phase):
                reports[f"converge {phase} after the boot"] = provision(host, "converge", phase)
                reports[f"check {phase} after the boot"] = provision(host, "check", phase)
            healthy(stage, ready)
    return Moments(reports, crashes[0], phase1[0], booted[0])
