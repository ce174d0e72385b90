"""What each of Docker's network drivers makes, who reaches whom through it, and who is known by name."""

from __future__ import annotations

import pytest

from acceptance.phase2.drivers import DRIVERS, Driver, NoDriver, Tried, attempt, shared
from acceptance.phase2.stage import InContainers


@pytest.fixture(scope="module", params=DRIVERS, ids=[driver.name.replace(" ", "-") for driver in DRIVERS])
def tried(containers: InContainers, request: pytest.FixtureRequest) -> Tried:
    """Try one driver after the other."""
    driver, name = request.param, containers.containers.host
    assert isinstance(driver, Driver)
    away = next((host for host in containers.lab.hosts.values() if host.name != name), None)
    if name is None or away is None:
        pytest.skip("the plan has no containers, or no other host")
    try:
        return attempt(containers, driver, away)
    except NoDriver as error:
        pytest.skip(str(error))


def test_link_is_of_the_drivers_kind(tried: Tried) -> None:
    driver = tried.driver
    wanted = [driver.kind] if driver.kind else []
    seen = list(tried.kinds.values())
    assert seen == wanted, f"{driver.name}: expected: links inside of kind {wanted}; seen: {tried.kinds}"
    assert bool(tried.ports) == driver.port, (
        f"{driver.name}: expected: a port of a bridge: {driver.port}; seen: {tried}"
    )


def test_container_gets_out_or_not(tried: Tried) -> None:
    assert tried.out.connected == tried.driver.gets_out, f"{tried.driver.name}: seen: {tried.out}"


def test_host_gets_in_or_not(tried: Tried) -> None:
    seen = tried.from_host
    connected = seen is not None and seen.connected
    assert connected == tried.driver.host_gets_in, f"{tried.driver.name}: seen: {seen or 'no address'}"


def test_neighbours_reach_each_other_or_not(tried: Tried) -> None:
    seen = tried.neighbour
    connected = seen is not None and seen.connected
    assert connected == tried.driver.neighbours, f"{tried.driver.name}: seen: {seen or 'no address'}"


def test_neighbour_is_known_by_its_name_or_not(tried: Tried) -> None:
    wanted = {tried.address} if tried.driver.names else set()
    assert tried.known == wanted, f"{tried.driver.name}: expected: {wanted}; seen: {set(tried.known)}"


def test_published_port_is_served_or_not(tried: Tried) -> None:
    seen = tried.outside
    connected = seen is not None and seen.connected
    assert connected == tried.driver.published, f"{tried.driver.name}: seen: {seen or 'nothing is published'}"


def test_host_driver_shares_the_network_of_the_host_and_publishes_nothing(containers: InContainers) -> None:
    if containers.containers.host is None:
        pytest.skip("the plan has no containers")
    own, seen, port = shared(containers)
    assert seen == own, f"expected: the host's network namespace {own}; seen: {seen}"
    assert port == 0, f"expected: nothing is published, as everything is; seen: port {port}"
