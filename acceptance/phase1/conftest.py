"""Phase 1 on the running lab: parametrisation from its plan, shared measurements, and what a failure is told with."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from acceptance.chosen import chosen, give_up
from acceptance.diagnose import diagnose
from acceptance.kernel import Snapshot, difference, snapshot
from acceptance.phase1 import flows
from acceptance.phase1.beside import Story, tell
from acceptance.phase1.cases import CASES
from acceptance.phase1.cycle import Cycle, turn
from acceptance.phase1.shop import Shop
from acceptance.provisioning import provision
from acceptance.traffic import Prober
from underlay.errors import Exit
from underlay.hosts.base import Host, Lab
from underlay.topology import Plan

#: Failures of one run that are told with the state of the hosts; more would only bury the first ones.
_MOST_DIAGNOSES = 3
_DIAGNOSES = pytest.StashKey[int]()

Snapshots = Mapping[str, Snapshot]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each fixture that stands for cases of the plan those of the running lab."""
    for name in CASES.keys() & set(metafunc.fixturenames):
        cases = list(CASES[name](chosen(metafunc.config).plan))
        metafunc.parametrize(name, [value for _, value in cases], ids=[identity for identity, _ in cases])


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


@pytest.fixture(scope="session", autouse=True)
def converged(lab: Lab, pytestconfig: pytest.Config) -> None:
    """Give up at once if phase 1 is not on the hosts as planned: nothing below would prove anything."""
    with ThreadPoolExecutor(len(lab.hosts)) as pool:
        reports = dict(zip(lab.hosts, pool.map(lambda host: provision(host, "check"), lab.hosts.values()), strict=True))
    wrong = {name: report for name, report in reports.items() if report.exit_code != 0}
    crashed = [
        f"{name}: check crashed: {report}" for name, report in wrong.items() if report.exit_code == Exit.UNFORESEEN
    ]
    if crashed:
        give_up(pytestconfig, crashed, Exit.UNFORESEEN)
    if wrong:
        lines = [f"{name}: phase 1 is not as planned: {report}" for name, report in wrong.items()]
        give_up(pytestconfig, [*lines, "    hint: ./lab converge phase1"])


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
def probers(lab: Lab) -> Mapping[str, Prober]:
    """Traffic from each host, and from outside."""
    inner = {name: Prober(host, lab.plan) for name, host in lab.hosts.items()}
    return {**inner, lab.outside.name: Prober(lab.outside, lab.plan, outside=True)}


@pytest.fixture(scope="session")
def matrix(lab: Lab, converged: None) -> flows.Matrix:
    """Return the flow matrix, measured once."""
    return flows.measure(lab)


@pytest.fixture(scope="session")
def shop(lab: Lab, plan: Plan, converged: None) -> Shop:
    """Return the shop as a customer outside of the lab sees it."""
    if not plan.published:
        pytest.skip("the plan publishes nothing")
    return Shop(lab)


@pytest.fixture(scope="session")
def story(lab: Lab, plan: Plan, last_seen: LastSeen) -> Story:
    """Bring a second phase beside phase 1, on the first host with services, and tell what came of it."""
    name = next(item.name for item in plan.hosts if plan.services_on(item.name))
    return tell(lab, lab.hosts[name], last_seen.snapshots[name])


@pytest.fixture(scope="session")
def cycles(lab: Lab, converged: None) -> Mapping[str, Cycle]:
    """Phase 1 removed and made again, once for the modules that look at it; by host."""
    return turn(lab)
