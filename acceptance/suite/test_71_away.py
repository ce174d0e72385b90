"""Each part of the shop stopped, killed and frozen, one replica and all: what customers are told, and that it heals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest

from acceptance.suite import outages
from acceptance.suite.flows import Pair, all_pairs
from acceptance.suite.shop import Shop, assert_nothing_shows
from acceptance.suite.stage import Stage
from acceptance.traffic import Attempt, Listener, Outcome
from underlay.topology import Program
from underlay.wait import NotYet, until

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

_LIST = "/api/products"
#: Requests in a row that must all be answered while one replica of several is away.
_IN_A_ROW = 6


@dataclass(frozen=True, slots=True)
class Away:
    """What came of requests while parts of the shop were away, by what was away and what was asked for."""

    answers: Mapping[str, Sequence[Outcome]]

    def assert_told(self, away: str, *statuses: int) -> None:
        """Fail unless all requests were answered with one of the statuses, and with nothing of a program's insides."""
        for answer in self.answers[away]:
            answer.assert_connected()
            assert answer.status in statuses, f"{away}: expected: {statuses}; seen: {answer} {answer.body}"
            if answer.status >= 400:
                assert_nothing_shows(away, answer)


def _healed(shop: Shop, number: int) -> None:
    shop.wait_for(shop.get(_LIST), 200)
    shop.wait_for(shop.order(number), 201)
    shop.wait_for_replicas()
    if shop.caches():
        shop.wait_for_cache()


@pytest.fixture(scope="module")
def number(stage: Stage, shop: Shop) -> int:
    """Return a product of which there is enough, in a plan whose shop has all of its parts."""
    if stage.plan.service(shop.entry.service).program is not Program.NGINX:
        pytest.skip("the plan's entry is no edge")
    return int(shop.query("SELECT id FROM products ORDER BY stock DESC LIMIT 1"))


@pytest.fixture(scope="module")
def frozen(stage: Stage, shop: Shop, number: int) -> Away:
    """Freeze everything once; the shop is whole again afterwards.

    An order is never sent twice, so it tells that all are frozen. Of the products the first is, and each gateway takes
    each in its turn. From a frozen gateway a request that changes nothing is sent on to the next, and then all are
    thawed. While customers wait for the gateways, what is behind these is asked in their place.
    """
    answers: dict[str, Sequence[Outcome]] = {}
    read, take = [shop.get(_LIST)], [shop.order(number)]
    asker = outages.of(stage, Program.GATEWAY)[0]

    def behind(program: Program, request: Attempt) -> Sequence[Outcome]:
        target = outages.of(stage, program)[0]
        way = replace(request, address=str(target.address), port=target.service.port, namespace=asker.space)
        way = replace(way, path=way.path.removeprefix("/api"), who=asker.name)
        return stage.prober(asker.host).attempt([way])

    products = outages.crowded(stage, Program.PRODUCT)
    turns = len(outages.of(stage, Program.PRODUCT)) * len(outages.of(stage, Program.GATEWAY))
    with ThreadPoolExecutor(turns + 3) as pool:
        shop.forget_cached()
        with outages.frozen(stage, [*products, *outages.of(stage, Program.ORDER)]):
            taking = pool.submit(shop.ask, take)
            answers["one product after the other"] = list(pool.map(shop.one, read * turns))
            answers["orders"] = taking.result()
        shop.forget_cached()
        with outages.frozen(stage, outages.of(stage, Program.GATEWAY)):
            reading = pool.submit(shop.ask, read)
            with outages.frozen(stage, outages.of(stage, Program.REDIS)):
                answers["caches"] = behind(Program.PRODUCT, *read)
            # Later than the other, which else would find both replicas known to have failed, and be told so at once.
            taking = pool.submit(shop.ask, take)
            with outages.frozen(stage, outages.of(stage, Program.POSTGRES)):
                ordering = pool.submit(behind, Program.ORDER, *take)
                answers["databases"] = [*behind(Program.PRODUCT, *read), *ordering.result()]
            answers["gateways"] = taking.result()
        answers["one gateway after the other"] = reading.result()
    with outages.frozen(stage, outages.of(stage, Program.NGINX)):
        answers["edges"] = [shop.knock()]
    _healed(shop, number)
    return Away(answers)


@pytest.mark.parametrize(
    ("away", "statuses"), [("gateways", (504,)), ("orders", (503,)), ("caches", (200,)), ("databases", (503,))]
)
def test_frozen_service_is_told_as_promised(frozen: Away, away: str, statuses: tuple[int, ...]) -> None:
    frozen.assert_told(away, *statuses)


@pytest.mark.parametrize(("away", "named"), [("orders", "order"), ("databases", "database")])
def test_what_is_frozen_is_named(frozen: Away, away: str, named: str) -> None:
    for answer in frozen.answers[away]:
        dependencies = {detail["dependency"] for detail in json.loads(answer.body)["error"]["details"]}
        assert dependencies == {named}, f"{away}: expected: {named} is named; seen: {answer.body}"


@pytest.mark.parametrize("program", [Program.GATEWAY, Program.PRODUCT])
def test_frozen_replica_of_two_costs_time_but_no_answer(frozen: Away, stage: Stage, program: Program) -> None:
    if not outages.crowded(stage, program):
        pytest.skip(f"the plan has no two replicas of a {program} service")
    frozen.assert_told(f"one {program} after the other", 200)
    longest = max(frozen.answers[f"one {program} after the other"], key=lambda answer: answer.seconds)
    waited = stage.plan.timeouts.connect
    assert longest.seconds > waited, f"expected: somebody met the frozen {program}, over {waited} s; seen: {longest}"


def test_frozen_edge_gives_no_answer(frozen: Away) -> None:
    for outcome in frozen.answers["edges"]:
        assert outcome.outcome == "timeout", f"expected: no answer from a frozen edge; seen: {outcome}"


@dataclass(frozen=True, slots=True)
class Stopped:
    """What customers were told step by step, and what listeners in the services' places heard meanwhile, by pair."""

    away: Away
    echoes: Mapping[str, Outcome]
    heard: Mapping[str, Sequence[str]]


@pytest.fixture(scope="module")
def stopped(stage: Stage, shop: Shop, number: int) -> Stopped:
    """Stop everything, from the inside out; in the services' places something echoes; the shop is whole again then."""
    answers: dict[str, Sequence[Outcome]] = {}

    def stop(*programs: Program) -> None:
        outages.each(stage.stop, outages.of(stage, *programs))

    def told() -> Sequence[Outcome]:
        with ThreadPoolExecutor(2) as pool:  # each waits for what is away
            reading, taking = pool.submit(shop.ask, [shop.get(_LIST)]), pool.submit(shop.ask, [shop.order(number)])
            return [*reading.result(), *taking.result()]

    with outages.stopped(stage, outages.crowded(stage, Program.GATEWAY, Program.PRODUCT)):
        reads, orders = [shop.get(_LIST)] * _IN_A_ROW, [shop.order(number)] * _IN_A_ROW
        answers["one of each"] = shop.ask([*reads, *orders])
    try:
        stop(Program.POSTGRES, Program.REDIS)
        answers["databases"] = told()
        stop(Program.PRODUCT, Program.ORDER)
        answers["products and orders"] = told()
        stop(Program.GATEWAY)
        answers["gateways"] = shop.ask([shop.get(_LIST)])
        stop(Program.NGINX)
        answers["edges"] = [shop.knock()]
        echoes, heard = _echo(stage)
    finally:
        outages.each(stage.start, stage.seats())
    _healed(shop, number)
    return Stopped(Away(answers), echoes, heard)


def _echo(stage: Stage) -> tuple[dict[str, Outcome], dict[str, Sequence[str]]]:
    """Make all allowed connections to listeners in the services' places, each with packets as large as they may be."""
    pairs = [pair for pair in all_pairs(stage.plan) if pair.allowed]
    echoes: dict[str, Outcome] = {}
    with ExitStack() as stack:
        seats = {seat.name: seat for seat in stack.enter_context(stage.held(stage.seats()))}
        places = {host: [seats[seat.name] for seat in here] for host, here in stage.by_host().items()}
        listening = {}
        for host, here in places.items():
            wanted = [Listener("echo", seat.space, str(seat.address), seat.service.port) for seat in here]
            listening[host] = stack.enter_context(stage.prober(host).listening(wanted))
        for host in places:
            mine = [pair for pair in pairs if seats[pair.source.name].host == host]
            ways = [(seats[pair.source.name], seats[pair.target.name]) for pair in mine]
            attempts = [source.attempt("echo", target.address, target.service.port) for source, target in ways]
            outcomes = stage.prober(host).attempt(attempts)
            echoes |= {pair.name: outcome for pair, outcome in zip(mine, outcomes, strict=True)}
    heard: dict[str, Sequence[str]] = {}
    for host, here in places.items():
        heard |= {seat.name: seen for seat, seen in zip(here, listening[host].seen, strict=True)}
    return echoes, heard


def test_one_replica_of_two_is_not_missed(stopped: Stopped, stage: Stage) -> None:
    if not outages.crowded(stage, Program.GATEWAY, Program.PRODUCT):
        pytest.skip("the plan has one gateway and one product replica")
    stopped.away.assert_told("one of each", 200, 201)


@pytest.mark.parametrize("away", ["databases", "products and orders"])
def test_stopped_service_is_told_as_promised(stopped: Stopped, away: str) -> None:
    stopped.away.assert_told(away, 503)


def test_stopped_gateways_are_told_as_the_phase_has_it(stopped: Stopped, stage: Stage) -> None:
    stopped.away.assert_told("gateways", stage.without_gateways)


def test_stopped_edge_is_told_by_the_kernel(stopped: Stopped) -> None:
    for outcome in stopped.away.answers["edges"]:
        assert outcome.outcome == "refused", f"expected: refused, nobody listens there; seen: {outcome}"


def test_edge_that_is_stopped_finishes_what_it_has_begun(stage: Stage, shop: Shop, number: int) -> None:
    """An order whose second half comes when the edge takes nobody any more is taken."""
    edges = outages.of(stage, Program.NGINX)
    with ThreadPoolExecutor(1) as pool:

        def stop() -> None:
            pool.submit(outages.each, stage.stop, edges)

            def closed() -> bool | NotYet:
                seen = shop.knock()
                return True if not seen.connected else NotYet(str(seen))

            until(closed, deadline_s=stage.plan.timeouts.ready, what="an edge that takes nobody", where="outside")

        try:
            answer = shop.hesitate(shop.order(number), stop)
        finally:
            pool.shutdown()  # it has stopped before it is started
            outages.each(stage.start, edges)
    _healed(shop, number)
    answer.assert_connected()
    assert answer.status == 201, f"expected: the order is taken, 201; seen: {answer} {answer.body}"


def test_largest_packets_pass_both_ways(stopped: Stopped, allowed_pair: Pair, stage: Stage) -> None:
    """Unfragmented, and as large as the plan's MTU lets them be; the receiver sees the replica's own address."""
    pair = allowed_pair
    outcome, source = stopped.echoes[pair.name], stage.seat(pair.source)
    outcome.assert_connected()
    seen = outcome.reply_text
    assert seen == str(stage.plan.underlay.mtu), (
        f"expected: packets of {stage.plan.underlay.mtu} bytes both ways; seen: of {seen}: {outcome}"
    )
    address = stage.source(source, stage.seat(pair.target))
    own = [peer for peer in stopped.heard[pair.target.name] if peer == f"{address}:{outcome.local_port}"]
    assert own, f"{pair.target.name}: expected: {address} itself; seen: {stopped.heard[pair.target.name]}"


@dataclass(frozen=True, slots=True)
class Killed:
    """What was answered while replicas were killed, and started again by whoever looks after them.

    ``broken`` are answers that had begun, and ended before they were whole.
    """

    away: Away
    broken: Sequence[Outcome]


@pytest.fixture(scope="module")
def killed(stage: Stage, shop: Shop, number: int) -> Killed:
    """Kill one replica of those that have another, then everything; the shop is whole again afterwards."""
    answers: dict[str, Sequence[Outcome]] = {}
    some = outages.crowded(stage, Program.GATEWAY, Program.PRODUCT)

    requests = [shop.get(_LIST), shop.order(number)] * _IN_A_ROW
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(shop.send_all, requests)
        outages.kill(stage, some)
        meanwhile, after = asking.result(), shop.ask(requests)
    broken = [answer for answer in meanwhile if "Connection broken" in answer.error]
    answers["one of each"] = [*(answer for answer in meanwhile if answer not in broken), *after]
    outages.kill(stage, stage.seats())
    _healed(shop, number)
    return Killed(Away(answers), broken)


def test_killed_replica_of_two_is_not_missed(killed: Killed, stage: Stage) -> None:
    """Of an order that was under way nobody knows whether it was taken: that is said (502), and nothing else.

    An answer that had begun cannot be begun again: it breaks off, once at most for each gateway that was killed.
    """
    if not outages.crowded(stage, Program.GATEWAY, Program.PRODUCT):
        pytest.skip("the plan has one gateway and one product replica")
    most, seen = len(outages.crowded(stage, Program.GATEWAY)), [str(answer) for answer in killed.broken]
    assert len(seen) <= most, f"expected: {most} broken answers at most; seen: {seen}"
    reads = [answer for answer in killed.away.answers["one of each"] if answer.attempt.method == "GET"]
    orders = [answer for answer in killed.away.answers["one of each"] if answer.attempt.method == "POST"]
    Away({"one of each": reads}).assert_told("one of each", 200)
    Away({"one of each": orders}).assert_told("one of each", 201, 502)


def test_everything_killed_at_once_comes_back_by_itself(killed: Killed, shop: Shop) -> None:
    answer = shop.one(shop.get(_LIST))
    assert answer.status == 200, f"expected: 200; seen: {answer} {answer.body}"
