"""Crash: `converge` is killed at random moments of its work; never is there a wire without its guard."""

from __future__ import annotations

import re
import shlex

import pytest

from acceptance.phase3.stage import ByTunnel
from acceptance.provisioning import command, provision
from acceptance.suite import chance, flows
from acceptance.suite.stage import Seat
from underlay.topology.tunnel import BRIDGE, DEVICE

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

_KILLS, _SEED_VARIABLE = 10, "UNDERLAY_CRASH_SEED"
#: The soonest moment of death, in parts of the time that a run takes: before that Python is still starting.
_SOONEST = 0.35
#: What a shell says of a command that SIGKILL ended.
_KILLED = 137
_STATE = "ip -o link; iptables-save"
#: What leads frames of the tier, and packets of the tunnel, to the guard.
_JUMPS = frozenset({f"-i {BRIDGE}", f"-o {BRIDGE}", "--dport"})


def _leading(rules: str) -> dict[str, frozenset[str]]:
    """Return by table what is led to chains of the phase."""
    found: dict[str, set[str]] = {"filter": set(), "security": set()}
    table = ""
    for line in rules.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif table in found and re.match(r"-A (INPUT|FORWARD) .* -j PHASE3-", line):
            found[table] |= {jump for jump in _JUMPS if f"{jump} " in line}
    return {name: frozenset(jumps) for name, jumps in found.items()}


def test_no_wire_without_its_guard_whenever_it_is_killed(tunnel: ByTunnel, called: Seat) -> None:
    seed = chance.seed(_SEED_VARIABLE)
    print(f"seed {seed}; to repeat: {_SEED_VARIABLE}={seed}")
    draw, host = chance.drawn_by(seed), tunnel.machine(called)
    converge = shlex.join(command("converge", tunnel.phase, "--no-wait"))
    try:
        provision(host, "remove", tunnel.phase)
        whole = host.run(["sh", "-c", converge]).seconds  # Python's start is a part of what is killed
        for _ in range(_KILLS):
            removed = provision(host, "remove", tunnel.phase)
            assert removed.exit_code == 0, f"{host.name}: expected: removed whatever is there; seen: {removed}"
            moment = draw.uniform(_SOONEST, 1) * whole
            script = (
                f"timeout --signal=KILL {moment:.3f} {converge} >/dev/null 2>&1; echo $?; ip -o link; iptables-save"
            )
            code, _, state = host.run(["sh", "-c", script]).stdout.partition("\n")
            where = f"{host.name}: seed {seed}, killed after {moment:.3f} s"
            assert int(code) in {0, _KILLED}, f"{where}: expected: killed, or done; seen: exit {code}"
            if f" {BRIDGE}: " in state or f" {DEVICE}: " in state:
                expected = dict.fromkeys(("filter", "security"), _JUMPS)
                seen = _leading(state)
                assert seen == expected, f"{where}: expected: a guard before the wire, {expected}; seen: {seen}"
    finally:
        mended = provision(host, "converge", tunnel.phase)
    assert mended.exit_code == 0, f"{host.name}: seed {seed}: expected: converge ends green; seen: {mended}"
    again = provision(host, "converge", tunnel.phase)
    assert (again.exit_code, again.resources) == (0, ()), f"{host.name}: expected: 0 changes; seen: {again}"
    with tunnel.serving():
        matrix = flows.measure(tunnel, (flows.SERVICE,))
    for pair in flows.all_pairs(tunnel.plan):
        flows.assert_flow(matrix, pair, tunnel)
