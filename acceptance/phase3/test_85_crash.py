"""Crash: `converge` and `remove` are killed at random moments; never is there a wire without its guard."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping

import pytest

from acceptance.phase3.stage import ByTunnel
from acceptance.provisioning import command, provision
from acceptance.suite import chance, flows
from acceptance.suite.stage import Seat
from underlay.topology.tunnel import BRIDGE, DEVICE

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

_KILLS_VARIABLE, _KILLS, _SEED_VARIABLE = "UNDERLAY_CRASH_KILLS", 10, "UNDERLAY_CRASH_SEED"
#: Kills, in parts of those that are wanted, after which it is given up that one hits the work.
_TRIES = 5
#: The soonest moment of death, in parts of the time that a run takes: before that Python is still starting.
_SOONEST = 0.35
#: Moments that are as good as one, in the same parts.
_CLOSE = 0.02
#: What a shell says of a command that SIGKILL ended.
_KILLED = 137
_STATE = "ip -o link; iptables-save; nft --stateless list ruleset bridge"
_WIRE = re.compile(rf" ({BRIDGE}|{DEVICE})[:@]", re.MULTILINE)


def _guard(state: str) -> Mapping[str, list[str]]:
    """Return what of the state is the phase's guard, by table: every rule, in order."""
    found: dict[str, list[str]] = {}
    table = ""
    for line in state.splitlines():
        if line.startswith(("*", "table ")):
            table = line
        elif ("PHASE3-" in line and line.startswith("-A ")) or ("underlay-phase3" in table and "drop" in line):
            found.setdefault(table, []).append(line.strip())
    return found


@pytest.mark.parametrize("verb", ["converge", "remove"])
def test_no_wire_without_its_guard_whenever_it_is_killed(tunnel: ByTunnel, called: Seat, verb: str) -> None:
    seed = chance.seed(_SEED_VARIABLE)
    wanted = int(os.environ.get(_KILLS_VARIABLE) or _KILLS)
    print(f"seed {seed}; to repeat: {_SEED_VARIABLE}={seed}")
    draw, host = chance.drawn_by(seed), tunnel.machine(called)
    against = "remove" if verb == "converge" else "converge"
    words = shlex.join(command(verb, tunnel.phase, *(("--no-wait",) if verb == "converge" else ())))
    whole, hits, kills = host.run(["sh", "-c", _STATE]).stdout, 0, 0
    expected = _guard(whole)
    assert len(expected) == 3, f"{host.name}: expected: a guard in three tables; seen: {sorted(expected)}"
    try:
        provision(host, against, tunnel.phase)
        took = host.run(["sh", "-c", words]).seconds  # Python's start is a part of what is killed
        soonest, latest = _SOONEST, 1.0
        while kills < wanted or (not hits and kills < _TRIES * wanted):
            kills += 1
            undone = provision(host, against, tunnel.phase)
            assert undone.exit_code == 0, f"{host.name}: expected: {against} whatever is there; seen: {undone}"
            part = draw.uniform(soonest, latest)
            moment = part * took
            script = f"timeout --signal=KILL {moment:.3f} {words} >/dev/null 2>&1; echo $?; {_STATE}"
            code, _, state = host.run(["sh", "-c", script]).stdout.partition("\n")
            where = f"{host.name}: seed {seed}, {verb} killed after {moment:.3f} s"
            assert int(code) in {0, _KILLED}, f"{where}: expected: killed, or done; seen: exit {code}"
            if _WIRE.search(state):
                seen = _guard(state)
                assert seen == expected, f"{where}: expected: all of the guard with the wire, {expected}; seen: {seen}"
                hits += int(code) == _KILLED
            # Nearer to the work, if it was before or after it; a run is never twice as fast.
            soonest, latest = (part, latest) if int(code) == _KILLED else (soonest, part)
            if verb == "remove" or hits or latest - soonest < _CLOSE:
                soonest, latest = _SOONEST, 1.0
    finally:
        mended = provision(host, "converge", tunnel.phase)
    assert hits, f"{host.name}: seed {seed}: expected: one of {kills} kills finds a wire half made; seen: none"
    assert mended.exit_code == 0, f"{host.name}: seed {seed}: expected: converge ends green; seen: {mended}"
    again = provision(host, "converge", tunnel.phase)
    assert (again.exit_code, again.resources) == (0, ()), f"{host.name}: expected: 0 changes; seen: {again}"
    flows.assert_all(tunnel)
