"""Crash: `converge` is killed at random moments of its work; the next one ends green."""

from __future__ import annotations

import os
import random
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence

import pytest

from acceptance.conftest import LastSeen
from acceptance.provisioning import command, provision, read_report
from acceptance.suite import chance, flows
from acceptance.suite.shop import Shop
from acceptance.suite.stage import Seat, Stage
from underlay.errors import Exit
from underlay.hosts.base import Host, Lab
from underlay.topology import Plan

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

#: How often it is killed (each time takes as long as a converge, which on emulated hosts is long), and how many times
#: as often that is tried: a run that has ended before its time does not count.
_KILLS_VARIABLE, _KILLS, _TRIES = "UNDERLAY_CRASH_KILLS", 20, 3
#: After every so many tries `check` is asked too: it costs as much as a kill.
_ASKED = 4
#: The soonest moment of death, in parts of the time that a run takes: before that Python is still starting.
_SOONEST = 0.35
#: How much longer a run is taken to be after one that was killed; one that came to its end has shown how long it is.
_LONGER = 1.08
_SEED_VARIABLE = "UNDERLAY_CRASH_SEED"
#: What a shell says of a command that SIGKILL ended, and what timeout(1) says then.
_KILLED = 137


@pytest.fixture
def host(lab: Lab, plan: Plan) -> Iterator[Host]:
    """Lend the first host with services; it is as planned again afterwards, whatever happened."""
    machine = next(lab.hosts[item.name] for item in plan.hosts if plan.services_on(item.name))
    yield machine
    report = provision(machine, "converge")
    assert report.exit_code == 0, f"{machine.name}: expected: converge mends whatever a test left; seen: {report}"


def _breakages(here: Sequence[Seat], draw: random.Random) -> list[str]:
    """Return a few commands that each break something, in a random mix."""
    some = draw.sample(here, k=min(len(here), draw.randint(1, 3)))
    kinds = [
        *(f"ip netns delete {seat.replica.name}" for seat in some),
        *(f"ip link delete {seat.replica.link}" for seat in some),
        f"ip link delete {some[0].tier.bridge}",
        "iptables -w -F PHASE1-FROM",
        "iptables -w -t nat -F PHASE1-LEAVE",
        "sysctl -qw net.ipv4.ip_forward=0",
        f"rm -f /etc/netns/{some[0].replica.name}/resolv.conf",
        f"rm -f /etc/supervisor/conf.d/{some[0].replica.name}.conf",
    ]
    return draw.sample(kinds, k=draw.randint(2, 4))


#: Every other time the host does not forward any more, and its guard has gone: a run must make the latter first.
def _unguarded(here: Sequence[Seat]) -> tuple[str, ...]:
    jump = f'-i {here[0].tier.bridge} -m comment --comment "underlay phase1" -j PHASE1-FROM'
    lost = (f"iptables -w -t {table} -D FORWARD {jump}" for table in ("filter", "security"))
    return ("sysctl -qw net.ipv4.ip_forward=0", "iptables -w -P FORWARD ACCEPT", *lost)


def _guard(rules: Iterable[str]) -> frozenset[str]:
    """Return the rules that stand between the host's links, and the policy."""
    return frozenset(
        line
        for line in rules
        if re.match(r":FORWARD DROP|-A (FORWARD .*PHASE1-(FROM|TO)$|PHASE1-(FROM|TO|EGRESS|DENY) )", line)
    )


def _plain(rules: Iterable[str]) -> list[str]:
    """Return rules as iptables-save shows them, without the counters of policies."""
    return [re.sub(r" \[\d+:\d+\]$", "", line) for line in rules]


#: Runs a command until the host forwards, and kills it at that moment; a shell looks every few microseconds.
_UNTIL_FORWARDING = """
"$@" >/dev/null 2>&1 & run=$!
while read -r on </proc/sys/net/ipv4/ip_forward; [ "$on" = 0 ] && kill -0 $run 2>/dev/null; do :; done
kill -KILL $run
echo "$on"
iptables-save
"""


def test_guard_stands_when_the_host_begins_to_forward(host: Host, stage: Stage, last_seen: LastSeen) -> None:
    guard = _guard(last_seen.snapshots[host.name].plain_rules())
    assert guard, f"{host.name}: expected: rules of a guard; seen: none"
    host.run(["sh", "-e", "-c", "\n".join(_unguarded(stage.seats(host.name)))])
    run = command("converge", "phase1", "--no-wait")
    forwards, *rules = host.run(["sh", "-c", _UNTIL_FORWARDING, "sh", *run]).stdout.splitlines()
    assert forwards == "1", f"{host.name}: expected: converge makes it forward again; seen: {forwards}"
    missing = guard - _guard(_plain(rules))
    assert not missing, (
        f"{host.name}: expected: the guard is there before the host forwards; missing: {sorted(missing)}"
    )


def test_next_converge_after_a_kill_ends_green(stage: Stage, host: Host, shop: Shop, last_seen: LastSeen) -> None:
    seed = chance.seed(_SEED_VARIABLE)
    print(f"seed {seed}; to repeat: {_SEED_VARIABLE}={seed}")
    draw = chance.drawn_by(seed)
    here = stage.seats(host.name)
    converge = shlex.join(command("converge", "phase1", "--no-wait"))
    check = shlex.join(command("check", "phase1", "--json"))
    whole = host.run(["sh", "-c", f"{check}; exit $?"]).seconds  # Python's start is a part of what is killed
    guard = _guard(last_seen.snapshots[host.name].plain_rules())
    assert guard, f"{host.name}: expected: rules of a guard; seen: none"
    wanted, kills = int(os.environ.get(_KILLS_VARIABLE) or _KILLS), 0
    for number in range(wanted * _TRIES):
        moment = draw.uniform(_SOONEST, 1) * whole
        lines = [
            *(f"{line} 2>/dev/null" for line in (*_breakages(here, draw), *(_unguarded(here) if number % 2 else ()))),
            "begun=$(date +%s.%N)",
            f"timeout --signal=KILL {moment:.3f} {converge} 2>&1",
            "code=$?; ended=$(date +%s.%N)",
            'echo; echo "forwards $(sysctl -n net.ipv4.ip_forward)"; iptables-save',
            "echo; echo converge $code $begun $ended",
            *((f"{check} 2>&1", "echo check $?") if number % _ASKED == 0 else ()),
        ]
        said = host.run(["sh", "-c", "\n".join(lines)]).stdout
        where = f"{host.name}: seed {seed}, try {number}, killed after {moment:.3f} s"
        words = said.partition("\nconverge ")[2].split()
        state, unguarded = said.partition("\nforwards ")[2].partition("\nconverge ")[0].splitlines(), number % 2
        missing = guard - _guard(_plain(state))
        assert not (unguarded and state[0] == "1" and missing), (
            f"{where}: expected: the guard is there before the host forwards; missing: {sorted(missing)}"
        )
        code, seconds = int(words[0]), float(words[2]) - float(words[1])
        assert code in {0, _KILLED}, f"{where}: expected: killed, or done; seen: exit {code}: {said[-3000:]}"
        if number % _ASKED == 0:
            answer, _, ended = said.partition("\nconverge ")[2].partition("\n")[2].rpartition("check ")
            report = read_report(where, int(ended), answer)
            assert (report.exit_code, bool(report.resources)) in {(Exit.GOOD, False), (Exit.CHECK_FAILED, True)}, (
                f"{where}: expected: check answers, good or with what differs; seen: {report}"
            )
        kills += code == _KILLED
        whole = whole * _LONGER if code == _KILLED else seconds
        if kills == wanted:
            break
    assert kills == wanted, f"{host.name}: seed {seed}: expected: {wanted} kills in {number + 1} tries; seen: {kills}"
    first = provision(host, "converge")
    assert first.exit_code == 0, f"{host.name}: seed {seed}: expected: converge ends green; seen: {first}"
    second = provision(host, "converge")
    assert (second.exit_code, second.resources) == (0, ()), (
        f"{host.name}: seed {seed}: expected: 0 changes; seen: {second}"
    )
    flows.assert_all(stage)
    listed = shop.wait_for(shop.get("/api/products"), 200)
    assert listed.data, f"expected: products; seen: {listed}"
