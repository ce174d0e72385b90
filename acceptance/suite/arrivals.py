"""Calls of the published ports, from everywhere and from those who may not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from acceptance.suite.cases import Visit, visits
from acceptance.suite.stage import Stage
from acceptance.traffic import Attempt, Outcome, Prober, outward

Probers = Mapping[str, Prober]


def arrive(stage: Stage, probers: Probers) -> Mapping[str, Outcome]:
    """Use the published ports from everywhere, in one run a machine; by the visit's name."""
    found: dict[str, Outcome] = {}
    by_machine: dict[str, list[tuple[Visit, Attempt]]] = {}
    for visit in visits(stage.plan):
        seat = stage.seat(visit.member) if visit.member else None
        kind, goal, port = "http", visit.address, visit.entry.port
        attempt = seat.attempt(kind, goal, port) if seat else outward(kind, goal, port)
        by_machine.setdefault(seat.host if seat else visit.machine, []).append(
            (visit, replace(attempt, path="/health"))
        )
    for machine, here in by_machine.items():
        outcomes = probers[machine].attempt([attempt for _, attempt in here])
        found |= {visit.name: outcome for (visit, _), outcome in zip(here, outcomes, strict=True)}
    return found


def intrude(stage: Stage, probers: Probers) -> Mapping[str, list[Outcome]]:
    """Use the published ports from those who may not go out, in one run a host; by replica."""
    found: dict[str, list[Outcome]] = {}
    plan = stage.plan
    for host, every in stage.by_host().items():
        keys = [(seat, entry) for seat in every for entry in plan.published if not seat.service.egress]
        attempts = [seat.attempt("tcp", plan.host(entry.host).address.ip, entry.port) for seat, entry in keys]
        for (seat, _), outcome in zip(keys, probers[host].attempt(attempts) if keys else (), strict=True):
            found.setdefault(seat.name, []).append(outcome)
    return found
