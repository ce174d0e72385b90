"""A phase on the running lab: cases from its plan, shared measurements, and what a failure is told with."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from acceptance.chosen import chosen, give_up
from acceptance.customer import Customer
from acceptance.diagnose import diagnose
from acceptance.kernel import Snapshot, difference, snapshot
from acceptance.modules import LabHost
from acceptance.provisioning import provision, settled
from acceptance.suite import flows
from acceptance.suite.cases import CASES, SEATS
from acceptance.suite.cycle import Cycle, turn
from acceptance.suite.shop import Shop
from acceptance.suite.stage import Member, Seat, Stage, load, stage_of
from acceptance.traffic import Prober, outside_prober
from underlay.errors import Exit, InputError
from underlay.hosts.base import Host, Lab
from underlay.topology import Plan

#: Failures of one run that are told with the state of the hosts; more would only bury the first ones.
_MOST_DIAGNOSES = 3
_DIAGNOSES = pytest.StashKey[int]()

_HERE = Path(__file__).parent

Snapshots = Mapping[str, Snapshot]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each fixture that stands for cases of the plan those of the running lab."""
    for name in CASES.keys() & set(metafunc.fixturenames):
        laid_out = stage_of(str(metafunc.config.getoption("--phase"))).laid_out
        cases = list(CASES[name](laid_out(chosen(metafunc.config).plan)))
        ids, values = [identity for identity, _ in cases], [value for _, value in cases]
        metafunc.parametrize(name, values, ids=ids, indirect=name in SEATS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the modules of all rooms in the order of their numbers: what the rest stands on is first."""
    items.sort(key=lambda item: item.path.name if item.path.is_relative_to(_HERE) else "")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell a failure with the state of the hosts at that moment."""
    report = yield
    done = item.config.stash.get(_DIAGNOSES, 0)
    if report.failed and done < _MOST_DIAGNOSES:
        item.config.stash[_DIAGNOSES] = done + 1
        report.sections.extend(diagnose(chosen(item.config)))
    return report


@pytest.fixture(scope="session")
def stage(lab: Lab, pytestconfig: pytest.Config) -> Stage:
    """Return the phase that is asked for, as it is on the lab."""
    try:
        return load(str(pytestconfig.getoption("--phase")), lab)
    except InputError as error:
        give_up(pytestconfig, [str(problem) for problem in error.problems], Exit.USAGE)


@pytest.fixture(scope="session")
def plan(stage: Stage) -> Plan:
    """Return the plan on record, as the phase lays it out."""
    return stage.plan


@pytest.fixture(scope="session", autouse=True)
def converged(stage: Stage, pytestconfig: pytest.Config) -> None:
    """Give up at once if the phase is not on the hosts as planned: nothing below would prove anything."""
    lab, phase = stage.lab, stage.phase
    with ThreadPoolExecutor(len(lab.hosts)) as pool:
        list(pool.map(lambda host: settled(host, lab.plan), lab.hosts.values()))
        checks = pool.map(lambda host: provision(host, "check", phase), lab.hosts.values())
        reports = dict(zip(lab.hosts, checks, strict=True))
    wrong = {name: report for name, report in reports.items() if report.exit_code != 0}
    crashed = [
        f"{name}: check crashed: {report}" for name, report in wrong.items() if report.exit_code == Exit.UNFORESEEN
    ]
    if crashed:
        give_up(pytestconfig, crashed, Exit.UNFORESEEN)
    if wrong:
        lines = [f"{name}: {phase} is not as planned: {report}" for name, report in wrong.items()]
        give_up(pytestconfig, [*lines, f"    hint: ./lab converge {phase}"])


def _seat(stage: Stage, request: pytest.FixtureRequest) -> Seat:
    member = request.param
    assert isinstance(member, Member)
    return stage.seat(member)


@pytest.fixture
def seat(stage: Stage, request: pytest.FixtureRequest) -> Seat:
    """Return where a replica is: one after the other."""
    return _seat(stage, request)


@pytest.fixture
def egress_seat(stage: Stage, request: pytest.FixtureRequest) -> Seat:
    """Return where a replica is that may go out."""
    return _seat(stage, request)


@pytest.fixture
def confined_seat(stage: Stage, request: pytest.FixtureRequest) -> Seat:
    """Return where a replica is that may not go out."""
    return _seat(stage, request)


@pytest.fixture
def database_user(stage: Stage, request: pytest.FixtureRequest) -> Seat:
    """Return where a replica is that has a password of the database."""
    return _seat(stage, request)


@pytest.fixture
def host(lab: Lab, host_name: str) -> LabHost:
    """Return testinfra's host: one of the lab after the other."""
    return LabHost(lab.hosts[host_name], lab.plan)


@pytest.fixture
def host1(lab: Lab) -> LabHost:
    """Return testinfra's host for the first one of the plan."""
    return _numbered(lab, 1)


@pytest.fixture
def host2(lab: Lab) -> LabHost:
    """Return testinfra's host for the second one of the plan."""
    return _numbered(lab, 2)


@pytest.fixture
def outside(lab: Lab) -> LabHost:
    """Return testinfra's host for the machine outside of the lab."""
    return LabHost(lab.outside, lab.plan)


@pytest.fixture
def space(stage: Stage, seat: Seat) -> LabHost:
    """Return testinfra's host for the network of the seat: what is asked of it is asked in there."""
    return stage.inside(seat)


def _numbered(lab: Lab, number: int) -> LabHost:
    if len(lab.hosts) < number:
        pytest.skip(f"the plan has no host number {number}")
    return LabHost(list(lab.hosts.values())[number - 1], lab.plan)


class LastSeen:
    """The hosts' state when they were last looked at, so that it is not asked for twice between two modules."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.snapshots = self.look()

    def look(self) -> Snapshots:
        """Look now."""
        self.snapshots = take_snapshots(self._lab)
        return self.snapshots


def take_snapshots(lab: Lab, *, files: bool = False) -> Snapshots:
    """Look at all hosts at the same time."""

    def look(host: Host) -> Snapshot:
        return snapshot(host, files=files)

    with ThreadPoolExecutor(len(lab.hosts)) as pool:
        return dict(zip(lab.hosts, pool.map(look, lab.hosts.values()), strict=True))


@pytest.fixture(scope="session")
def last_seen(lab: Lab, converged: None) -> LastSeen:
    """Return the hosts' state when they were last looked at."""
    return LastSeen(lab)


@pytest.fixture(scope="module", autouse=True)
def left_as_found(last_seen: LastSeen) -> Iterator[None]:
    """Fail the module's last test if the module left anything behind on a host, or took anything away."""
    before = last_seen.snapshots
    yield
    after = last_seen.look()
    for name, state in after.items():
        was = before[name]
        changed = difference(was.lines() | was.surroundings(), state.lines() | state.surroundings())
        assert not changed, f"{name}: expected: as before this module; seen:\n{changed}"


@pytest.fixture(scope="session")
def snapshots(last_seen: LastSeen) -> Snapshots:
    """Return what the hosts said of themselves when the session began."""
    return dict(last_seen.snapshots)


@pytest.fixture(scope="session")
def probers(stage: Stage) -> Mapping[str, Prober]:
    """Traffic from each host, and from outside."""
    lab = stage.lab
    return {**{name: stage.prober(name) for name in lab.hosts}, lab.outside.name: outside_prober(lab)}


@pytest.fixture(scope="session")
def matrix(stage: Stage, converged: None) -> flows.Matrix:
    """Return the flow matrix, measured once."""
    with stage.serving():
        return flows.measure(stage)


@pytest.fixture(scope="session")
def customer(lab: Lab) -> Iterator[Customer]:
    """Lend somebody outside of the lab who asks by HTTP."""
    made = Customer(lab.outside, lab.plan)
    yield made
    made.close()


@pytest.fixture(scope="session")
def shop(stage: Stage, customer: Customer, converged: None) -> Shop:
    """Return the shop as a customer outside of the lab sees it."""
    if not stage.plan.published:
        pytest.skip("the plan publishes nothing")
    return Shop(stage, customer)


@pytest.fixture(scope="session")
def cycles(stage: Stage, converged: None) -> Mapping[str, Cycle]:
    """Return the phase removed and made again, once for the modules that look at it; by host."""
    return turn(stage)
