"""The plan: an edit, converged by the command as anybody does it, is the one truth, also after a power cut."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from acceptance.phase1.conftest import LastSeen
from acceptance.provisioning import provision
from acceptance.traffic import Attempt, Outcome, Prober
from underlay import process
from underlay.errors import Exit
from underlay.hosts import layout
from underlay.hosts.base import Lab
from underlay.hosts.find import options
from underlay.process import Completed
from underlay.repository import REPOSITORY
from underlay.topology import Plan, Published, parse_plan, render_plan
from underlay.wait import NotYet, until

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

_PATH = "/api/products"
#: A converge of all hosts waits for many programs, one after the other.
_WAITS = 8


@dataclass(frozen=True, slots=True)
class Workstation:
    """Where a person edits the plan and runs the command."""

    lab: Lab
    directory: Path

    def write(self, name: str, plan: Plan) -> Path:
        """Write a plan, and return its file."""
        path = self.directory / name
        path.write_text(render_plan(plan))
        return path

    def run(self, plan: Path, *words: str) -> Completed:
        """Run a verb with a plan to its end; any exit code is an answer."""
        command = (sys.executable, "-P", "-m", "underlay", *options(plan, self.lab.kind), *words)
        limit = self.lab.plan.timeouts.ready * _WAITS
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        return process.run(command, timeout=limit, check=False, cwd=REPOSITORY, env=environment)

    def good(self, plan: Path, *words: str) -> str:
        """Run a verb that must end with exit code 0, and return what it said."""
        done = self.run(plan, *words)
        assert done.ok, f"{' '.join(words)}: expected: exit 0; seen: exit {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def ask(self, port: int) -> Outcome:
        """Ask for the products, from outside, by a port of the host that publishes them."""
        entry = self.lab.recorded.published[0]
        address = str(self.lab.recorded.host(entry.host).address.ip)
        prober = Prober(self.lab.outside, self.lab.plan, outside=True)
        return prober.one(Attempt("http", address, port, path=_PATH))


@pytest.fixture(scope="module", autouse=True)
def left_as_found(last_seen: LastSeen) -> Iterator[None]:
    """Look at the hosts anew: a kernel that was started again sizes some of its parameters by the memory it finds."""
    yield
    last_seen.look()


@pytest.fixture
def workstation(lab: Lab, tmp_path: Path) -> Iterator[Workstation]:
    """Lend a place to edit plans in. All hosts have power and the plan that was found again, whatever happened."""
    place = Workstation(lab, tmp_path)
    found = place.write("found.yaml", lab.recorded)
    yield place
    for host in lab.hosts.values():
        host.power_on()
    place.good(found, "converge", "phase1")
    place.good(found, "check", "phase1")
    place.good(found, "status")


def _moved_port(plan: Plan) -> Plan:
    """Return the plan with its first published port on another one."""
    entry = plan.published[0]
    taken = {item.port for item in plan.published if item.host == entry.host}
    port = next(port for port in range(entry.port + 1, entry.port + 2 + len(taken)) if port not in taken)
    moved = Published(entry.host, port, entry.service)
    return _checked(replace(plan, published=(moved, *plan.published[1:])))


def _moved_host(plan: Plan) -> Plan:
    """Return the plan with its first host at another address of the underlay."""
    first, *others = plan.hosts
    taken = {host.address.ip for host in plan.hosts} | {plan.underlay.gateway.ip}
    free = next(address for address in plan.underlay.subnet.hosts() if address not in taken)
    address = IPv4Interface((free, plan.underlay.subnet.prefixlen))
    return _checked(replace(plan, hosts=(replace(first, address=address), *others)))


def _checked(plan: Plan) -> Plan:
    return parse_plan(render_plan(plan), "the edited plan")


def _answered(ask: Callable[[], Outcome]) -> Callable[[], Outcome | NotYet]:
    def probe() -> Outcome | NotYet:
        outcome = ask()
        return outcome if outcome.status == 200 else NotYet(f"{outcome} {outcome.body[:200]}")

    return probe


def test_an_edit_then_converge_is_the_one_truth(lab: Lab, workstation: Workstation) -> None:
    if not lab.recorded.published:
        pytest.skip("the plan publishes nothing")
    edited = _moved_port(lab.recorded)
    file, old, new = workstation.write("edited.yaml", edited), lab.recorded.published[0], edited.published[0]
    host, ready = lab.hosts[old.host], lab.plan.timeouts.ready

    before = workstation.run(file, "check", "phase1")
    assert before.returncode == int(Exit.CHECK_FAILED), f"expected: the edit is a difference; seen: {before.stdout}"
    assert f"{file}: it differs from the plan that is up (publish)" in before.stdout, f"seen: {before.stdout}"
    asked = workstation.run(file, "status", "--json")
    differs = json.loads(asked.stdout)["plan_differs"]
    assert (asked.returncode, differs) == (1, ["publish"]), f"expected: exit 1, publish; seen: {asked}"

    workstation.good(file, "converge", "phase1")
    said = workstation.good(file, "status")
    assert f"{new.host}:{new.port}" in said.split(), f"expected: {new.port} is published; seen:\n{said}"
    assert f"{old.host}:{old.port}" not in said.split(), f"expected: {old.port} is not; seen:\n{said}"
    workstation.good(file, "check", "phase1")
    until(_answered(lambda: workstation.ask(new.port)), deadline_s=ready, what="the shop", where=f"port {new.port}")
    seen = workstation.ask(old.port)
    assert not seen.connected, f"expected: nobody answers where it was; seen: {seen}"

    host.power_off()
    host.power_on()

    def back() -> bool | NotYet:
        report = provision(host, "check")
        return True if report.exit_code == 0 else NotYet(str(report))

    until(back, deadline_s=ready, what="Phase 1 as planned, by itself", where=host.name)
    until(_answered(lambda: workstation.ask(new.port)), deadline_s=ready, what="the shop", where=f"port {new.port}")
    workstation.good(file, "check", "phase1")


def test_an_edit_of_one_host_is_told_to_all(lab: Lab, workstation: Workstation) -> None:
    if not lab.recorded.published or len(lab.hosts) == 1:
        pytest.skip("the plan publishes nothing, or has one host")
    edited = _moved_port(lab.recorded)
    file, entry = workstation.write("edited.yaml", edited), edited.published[0]
    other = next(name for name in lab.hosts if name != entry.host)
    done = workstation.run(file, "converge", "phase1", "--host", other)
    assert done.ok, f"expected: exit 0; seen: {done}"
    assert "the other hosts know the changed plan too" in done.stderr, f"seen: {done.stderr}"
    report = provision(lab.hosts[entry.host], "check")
    assert report.exit_code == int(Exit.CHECK_FAILED), f"{entry.host}: expected: it knows what it lacks; seen: {report}"


def test_a_host_that_was_not_told_of_a_change_is_named(lab: Lab, workstation: Workstation) -> None:
    """As after a command that was killed when it had recorded the change, and not told it yet."""
    found = workstation.write("found.yaml", lab.recorded)
    host = next(iter(lab.hosts.values()))
    host.run(["sh", "-c", f"echo '# another one' >> {layout.PLAN_FILE}"])
    checked = workstation.run(found, "check", "phase1")
    assert checked.returncode == int(Exit.CHECK_FAILED), f"{host.name}: expected: a difference; seen: {checked}"
    assert "this host has not been told of a change" in checked.stdout, f"{host.name}: seen: {checked.stdout}"
    shown = workstation.run(found, "status")
    assert shown.returncode == int(Exit.CHECK_FAILED), f"{host.name}: expected: status says so, too; seen: {shown}"
    workstation.good(found, "converge", "phase1")
    workstation.good(found, "check", "phase1")
    workstation.good(found, "status")


def test_a_plan_that_moves_a_host_is_refused_before_anything_is_touched(lab: Lab, workstation: Workstation) -> None:
    file = workstation.write("moved.yaml", _moved_host(lab.recorded))
    first = next(iter(lab.hosts.values()))
    known = first.run(["sha256sum", layout.PLAN_FILE]).stdout
    done = workstation.run(file, "converge", "phase1")
    assert done.returncode == int(Exit.NOT_READY), f"expected: refused; seen: {done}"
    assert f"hosts.{first.name}.address" in done.stderr, f"expected: what moves is named; seen: {done.stderr}"
    assert "hint: " in done.stderr, f"expected: what to do instead; seen: {done.stderr}"
    still = first.run(["sha256sum", layout.PLAN_FILE]).stdout
    assert still == known, f"{first.name}: expected: the plan it had; seen: another one"
    found = workstation.write("found.yaml", lab.recorded)
    workstation.good(found, "status")
