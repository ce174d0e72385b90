"""The plan: an edit, converged by the command as anybody does it, is the one truth, also after a power cut.

A boot is what costs most on machines, so that the power is cut once, after the edit: the phase that comes back by
itself is the edited one.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from acceptance.conftest import LastSeen
from acceptance.customer import Customer
from acceptance.provisioning import PROGRAM, Report, phases_on, provision
from acceptance.suite import flows
from acceptance.suite.flows import Matrix
from acceptance.suite.stage import WITH_PASSWORD, Stage
from acceptance.traffic import Attempt, Outcome
from underlay import process
from underlay.errors import Exit
from underlay.hosts import layout
from underlay.hosts.base import Lab
from underlay.hosts.find import options
from underlay.phases import PHASES
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
    customer: Customer
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
        return self.customer.one(Attempt("http", address, port, path=_PATH))


@pytest.fixture(scope="module", autouse=True)
def left_as_found(last_seen: LastSeen) -> Iterator[None]:
    """Look at the hosts anew: a kernel that was started again sizes some of its parameters by the memory it finds."""
    yield
    last_seen.look()


@dataclass(frozen=True, slots=True)
class Edited:
    """An edit of the published port, step by step: asked about, converged, looked at; then its host's power is cut.

    ``old`` and ``new`` are the entries; ``checked`` and ``asked`` what `check` and `status` said of the edit, ``said``
    what `status` said of it when it was converged, and ``at_old`` what became of the port where it was. ``running``
    says which hosts ran while one had no power, ``booted`` when that one was started, before and after; ``back`` what
    its `check` said at last, ``told`` what the workstation's did.
    """

    file: Path
    old: Published
    new: Published
    checked: Completed
    asked: Completed
    said: str
    at_old: Outcome
    running: Mapping[str, bool]
    booted: tuple[str, str]
    back: Report
    answer: Outcome
    matrix: Matrix
    told: Completed


@pytest.fixture(scope="module")
def workstation(lab: Lab, customer: Customer, tmp_path_factory: pytest.TempPathFactory) -> Workstation:
    """Lend a place to edit plans in."""
    return Workstation(lab, customer, tmp_path_factory.mktemp("workstation"))


@pytest.fixture(scope="module")
def found(lab: Lab, workstation: Workstation) -> Iterator[Path]:
    """Lend the plan that was found. All hosts have power, and it is up again, when all is over, whatever happened."""
    file = workstation.write("found.yaml", lab.recorded)
    yield file
    for host in lab.hosts.values():
        host.power_on()
    # A host that has started meanwhile has brought all of its phases to the edited plan.
    on = frozenset[str]().union(*(phases_on(host, PROGRAM) for host in lab.hosts.values()))
    for phase in (item for item in PHASES if item in {"phase1", *on}):
        workstation.good(file, "converge", phase)
        workstation.good(file, "check", phase)
    workstation.good(file, "status")


@pytest.fixture(scope="module")
def edited(stage: Stage, workstation: Workstation, found: Path) -> Edited:
    """Go through the steps; until the module's end the plan that is up is the edited one."""
    if not stage.lab.recorded.published:
        pytest.skip("the plan publishes nothing")
    return _edit(stage, workstation)


def _edit(stage: Stage, workstation: Workstation) -> Edited:
    lab = stage.lab
    plan = _moved_port(lab.recorded)
    file, old, new = workstation.write("edited.yaml", plan), lab.recorded.published[0], plan.published[0]
    host, ready = lab.hosts[old.host], lab.plan.timeouts.ready

    def served() -> Outcome:
        ask = _answered(lambda: workstation.ask(new.port))
        return until(ask, deadline_s=ready, what="the shop", where=f"port {new.port}")

    checked, asked = workstation.run(file, "check", "phase1"), workstation.run(file, "status", "--json")
    workstation.good(file, "converge", "phase1")
    said = workstation.good(file, "status")
    workstation.good(file, "check", "phase1")
    served()
    at_old = workstation.ask(old.port)

    booted = host.facts()["booted"]
    host.power_off()
    running = {name: item.running() for name, item in lab.hosts.items()}
    host.power_on()

    def back() -> Report | NotYet:
        report = provision(host, "check")
        return report if report.exit_code == 0 else NotYet(str(report))

    return Edited(
        file, old, new, checked, asked, said, at_old,
        running=running,
        booted=(booted, host.facts()["booted"]),
        back=until(back, deadline_s=ready, what="Phase 1 as planned, by itself", where=host.name),
        answer=served(),
        matrix=flows.measure(stage, (flows.SERVICE,)),
        told=workstation.run(file, "check", "phase1"),
    )  # fmt: skip


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


def test_an_edit_of_one_host_is_told_to_all(lab: Lab, workstation: Workstation, found: Path) -> None:
    if not lab.recorded.published or len(lab.hosts) == 1:
        pytest.skip("the plan publishes nothing, or has one host")
    edited = _moved_port(lab.recorded)
    file, entry = workstation.write("edited.yaml", edited), edited.published[0]
    other = next(name for name in lab.hosts if name != entry.host)
    try:
        done = workstation.run(file, "converge", "phase1", "--host", other)
        assert done.ok, f"expected: exit 0; seen: {done}"
        assert "the other hosts know the changed plan too" in done.stderr, f"seen: {done.stderr}"
        report = provision(lab.hosts[entry.host], "check")
        assert report.exit_code == int(Exit.CHECK_FAILED), (
            f"{entry.host}: expected: it knows what it lacks; seen: {report}"
        )
    finally:
        workstation.good(found, "converge", "phase1")


def test_a_host_that_was_not_told_of_a_change_is_named(lab: Lab, workstation: Workstation, found: Path) -> None:
    """As after a command that was killed when it had recorded the change, and not told it yet."""
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


def test_a_host_that_has_lost_the_labs_secret_is_given_it_again(
    stage: Stage, workstation: Workstation, found: Path
) -> None:
    """It makes none by itself: what it derived from that would be no other host's passwords."""
    seat = next((seat for seat in stage.seats() if seat.service.program in WITH_PASSWORD), None)
    if seat is None:
        pytest.skip("the plan has no service with a password")
    host = stage.machine(seat)
    known = host.run(["sha256sum", layout.SECRET_FILE]).stdout
    host.run(["rm", layout.SECRET_FILE])
    checked = workstation.run(found, "check", "phase1")
    assert checked.returncode == int(Exit.NOT_READY), f"{host.name}: expected: it cannot answer; seen: {checked}"
    assert layout.SECRET_FILE in checked.stderr, f"{host.name}: expected: the file is named; seen: {checked.stderr}"
    said = workstation.good(found, "converge", "phase1")
    assert f"{host.name}: phase1: 0 changes" in said, f"{host.name}: expected: nothing else is touched; seen: {said}"
    again = host.run(["sha256sum", layout.SECRET_FILE]).stdout
    assert again == known, f"{host.name}: expected: the secret it had; seen: another one"


def test_a_plan_that_moves_a_host_is_refused_before_anything_is_touched(
    lab: Lab, workstation: Workstation, found: Path
) -> None:
    file = workstation.write("moved.yaml", _moved_host(lab.recorded))
    first = next(iter(lab.hosts.values()))
    known = first.run(["sha256sum", layout.PLAN_FILE]).stdout
    done = workstation.run(file, "converge", "phase1")
    assert done.returncode == int(Exit.NOT_READY), f"expected: refused; seen: {done}"
    assert f"hosts.{first.name}.address" in done.stderr, f"expected: what moves is named; seen: {done.stderr}"
    assert "hint: " in done.stderr, f"expected: what to do instead; seen: {done.stderr}"
    still = first.run(["sha256sum", layout.PLAN_FILE]).stdout
    assert still == known, f"{first.name}: expected: the plan it had; seen: another one"
    workstation.good(found, "status")


# From here on the plan that is up is the edited one.


def test_an_edit_is_a_difference_until_it_is_converged(edited: Edited) -> None:
    checked, asked = edited.checked, edited.asked
    assert checked.returncode == int(Exit.CHECK_FAILED), f"expected: the edit is a difference; seen: {checked.stdout}"
    named = f"{edited.file}: it differs from the plan that is up (publish)"
    assert named in checked.stdout, f"expected: {named}; seen: {checked.stdout}"
    differs = json.loads(asked.stdout)["plan_differs"]
    assert (asked.returncode, differs) == (1, ["publish"]), f"expected: exit 1, publish; seen: {asked}"


def test_an_edit_then_converge_is_the_one_truth(edited: Edited) -> None:
    old, new, words = edited.old, edited.new, edited.said.split()
    assert f"{new.host}:{new.port}" in words, f"expected: {new.port} is published; seen:\n{edited.said}"
    assert f"{old.host}:{old.port}" not in words, f"expected: {old.port} is not; seen:\n{edited.said}"
    assert not edited.at_old.connected, f"expected: nobody answers where it was; seen: {edited.at_old}"


def test_phase_comes_back_by_itself_after_a_power_cut_as_last_converged(edited: Edited, stage: Stage) -> None:
    name, (before, after) = edited.new.host, edited.booted
    ran = {host for host, running in edited.running.items() if running}
    wanted = edited.running.keys() - {name}
    assert ran == wanted, f"{name}: expected: it has no power, and {sorted(wanted)} run on; seen: {sorted(ran)} ran"
    assert after > before, f"{name}: expected: started later than {before}; seen: {after}"
    assert edited.back.resources == (), f"{name}: expected: as planned; seen: {edited.back}"
    assert edited.answer.data, f"expected: products; seen: {edited.answer}"
    for pair in flows.all_pairs(stage.plan):
        flows.assert_flow(edited.matrix, pair, stage)
    assert edited.told.ok, f"{name}: expected: the edited plan, also for the workstation; seen: {edited.told}"
