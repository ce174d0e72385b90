"""Power: a host whose power was cut comes back with Phase 1, without another command."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from acceptance.phase1 import flows
from acceptance.phase1.conftest import LastSeen
from acceptance.phase1.shop import Shop
from acceptance.provisioning import provision
from underlay.hosts.base import Host, Lab
from underlay.topology import Plan
from underlay.wait import NotYet, until

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds


@pytest.fixture(scope="module", autouse=True)
def left_as_found(last_seen: LastSeen) -> Iterator[None]:
    """Look at the hosts anew: a kernel that was started again sizes some of its parameters by the memory it finds."""
    yield
    last_seen.look()


@pytest.fixture
def host(lab: Lab, plan: Plan) -> Iterator[Host]:
    """Lend the first host with services; it has power again afterwards, whatever happened."""
    machine = next(lab.hosts[item.name] for item in plan.hosts if plan.services_on(item.name))
    yield machine
    machine.power_on()


def test_phase_comes_back_after_a_power_cut(lab: Lab, plan: Plan, host: Host, shop: Shop) -> None:
    booted = host.facts()["booted"]
    others = [other for other in lab.hosts.values() if other.name != host.name]
    host.power_off()
    assert not host.running(), f"{host.name}: expected: it has no power; seen: it runs"
    for other in others:
        assert other.running(), f"{other.name}: expected: it runs on; seen: it has stopped with {host.name}"
    host.power_on()
    again = host.facts()["booted"]
    assert again > booted, f"{host.name}: expected: started later than {booted}; seen: {again}"

    def back() -> bool | NotYet:
        report = provision(host, "check")
        return True if report.exit_code == 0 else NotYet(str(report))

    until(back, deadline_s=plan.timeouts.ready, what="Phase 1 as planned, by itself", where=host.name)
    answer = shop.wait_for(shop.get("/api/products"), 200)
    assert answer.data, f"expected: products; seen: {answer}"
    matrix = flows.measure(lab, (flows.SERVICE,))
    for pair in flows.all_pairs(plan):
        flows.assert_flow(matrix, pair, plan)
