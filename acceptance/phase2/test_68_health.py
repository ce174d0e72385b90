"""What Docker says of the containers' health while parts of the shop are away, and what customers notice of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from acceptance.phase2.moments import health, healthy
from acceptance.phase2.stage import InContainers
from acceptance.suite import outages
from acceptance.suite.shop import Shop
from acceptance.suite.stage import members
from acceptance.traffic import Outcome
from underlay.topology import Program
from underlay.wait import NotYet, until

#: See pyproject.toml: it takes as long as Docker takes to be sure.
pytestmark = pytest.mark.rebuilds

_NANOSECONDS = 1_000_000_000
_REQUESTS = 12
#: Whose health is asked of the database, by the one in between (docs/phase2.md).
_ON_DATABASE = (Program.PRODUCT, Program.ORDER, Program.GATEWAY)


@dataclass(frozen=True, slots=True)
class Away:
    """What was seen while parts were away.

    ``took`` is in seconds, until Docker had found out, and ``longest`` what its checks may need for that. ``states``
    are those of all containers then, ``starts`` how often each was started again, before and then.
    """

    took: float
    longest: float
    states: Mapping[str, str]
    starts: tuple[Mapping[str, object], Mapping[str, object]]
    answers: Sequence[Outcome]

    def assert_only(self, unhealthy: frozenset[str], gone: frozenset[str]) -> None:
        """Fail unless only those are unhealthy, in time, nobody was started again, and the rest is healthy."""
        assert self.took <= self.longest, f"expected: in {self.longest:.0f} s or sooner; seen: {self.took:.1f} s"
        wanted = {name: "unhealthy" if name in unhealthy else "healthy" for name in self.states if name not in gone}
        seen = {name: state for name, state in self.states.items() if name not in gone}
        assert seen == wanted, f"expected: {wanted}; seen: {seen}"
        before, then = self.starts
        assert then == before, f"expected: nobody is started again, {before}; seen: {then}"


def _states(stage: InContainers) -> Mapping[str, str]:
    names = [member.name for member in members(stage.plan)]
    return {name: health(said) for name, said in stage.inspect(names).items()}


def _starts(stage: InContainers) -> Mapping[str, object]:
    names = [member.name for member in members(stage.plan)]
    return {name: said.get("RestartCount") for name, said in stage.inspect(names).items() if said}


def _longest(stage: InContainers, name: str) -> float:
    """Return the seconds that Docker's checks of a container may need to find out: by its own settings."""
    said = stage.inspect([name])[name]
    config = said.get("Config") if said else None
    check = config.get("Healthcheck") if isinstance(config, Mapping) else None
    assert isinstance(check, Mapping), f"expected: {name} has a health check; seen: {config}"
    return float((check["Retries"] + 1) * (check["Interval"] + check["Timeout"]) / _NANOSECONDS)


def _wait(stage: InContainers, names: frozenset[str]) -> tuple[float, float]:
    """Wait until all of these are unhealthy; return the seconds, and what they may be."""
    longest, began = max(_longest(stage, name) for name in names), time.monotonic()

    def unhealthy() -> bool | NotYet:
        states = _states(stage)
        return all(states[name] == "unhealthy" for name in names) or NotYet(str(states))

    what = f"that {', '.join(sorted(names))} is unhealthy"
    until(unhealthy, deadline_s=longest + stage.plan.timeouts.command, what=what, where=str(stage.containers.host))
    return time.monotonic() - began, longest


@pytest.fixture(scope="module")
def hung(containers: InContainers, shop: Shop) -> Away:
    """Freeze one replica of a product service, and stop the cache."""
    some, caches = outages.crowded(containers, Program.PRODUCT), outages.of(containers, Program.REDIS)
    if not some or not shop.caches():
        pytest.skip("the plan has no two replicas of a product service, or no cache")
    before = _starts(containers)
    with outages.stopped(containers, caches), outages.frozen(containers, some):
        took = _wait(containers, frozenset({some[0].name}))
        answers = shop.ask([shop.get("/api/products")] * _REQUESTS)
        found = Away(*took, _states(containers), (before, _starts(containers)), answers)
    _whole(containers, shop)
    return found


def _whole(stage: InContainers, shop: Shop) -> None:
    healthy(stage, stage.plan.timeouts.ready)
    shop.wait_for_replicas()
    if shop.caches():
        shop.wait_for_cache()


@pytest.fixture(scope="module")
def without_database(containers: InContainers, shop: Shop) -> Away:
    """Stop the databases."""
    databases, users = outages.of(containers, Program.POSTGRES), outages.of(containers, *_ON_DATABASE)
    if not databases or not users:
        pytest.skip("the plan has no database that somebody uses")
    before = _starts(containers)
    with outages.stopped(containers, databases):
        took = _wait(containers, frozenset(seat.name for seat in users))
        found = Away(*took, _states(containers), (before, _starts(containers)), [shop.one(shop.get("/health"))])
    began = time.monotonic()
    _whole(containers, shop)
    seconds, ready = time.monotonic() - began, containers.plan.timeouts.ready
    assert seconds < ready, f"expected: all is well again in {ready:g} s; seen: {seconds:.1f} s"
    return found


def test_hung_container_is_unhealthy_and_nobody_else(hung: Away, containers: InContainers) -> None:
    """A cache that is away is nobody's illness."""
    (one,) = outages.crowded(containers, Program.PRODUCT)
    caches = frozenset(seat.name for seat in outages.of(containers, Program.REDIS))
    hung.assert_only(frozenset({one.name}), caches)


def test_unhealthy_container_gets_no_traffic(hung: Away, containers: InContainers) -> None:
    (one,) = outages.crowded(containers, Program.PRODUCT)
    seen = {answer.status for answer in hung.answers}
    assert seen == {200}, f"expected: the other replica answers, 200; seen: {seen}"
    served = {answer.headers.get("x-product-replica") for answer in hung.answers}
    assert one.name not in served, f"expected: no answer of {one.name}; seen: {served}"
    assert None not in served, f"expected: each answer names its replica; seen: {served}"


def test_who_cannot_do_without_the_database_is_unhealthy_and_nobody_else(
    without_database: Away, containers: InContainers
) -> None:
    users = frozenset(seat.name for seat in outages.of(containers, *_ON_DATABASE))
    gone = frozenset(seat.name for seat in outages.of(containers, Program.POSTGRES))
    without_database.assert_only(users, gone)
