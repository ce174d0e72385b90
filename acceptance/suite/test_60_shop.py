"""The shop's contract (services/openapi.yaml) from end to end, as a customer outside of the lab sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pytest

from acceptance.suite.shop import NO_CACHE, Shop, assert_nothing_shows
from acceptance.traffic import Attempt, Outcome
from underlay.topology import Plan, Program

_LIST = "/api/products"
#: More than any cache of ours may hold.
_CROWD_MB = 96
_ORDERS = "/api/orders"
#: Milliseconds after which what the cache keeps is to go.
_SOON = 60_000
#: Requests for each gateway, when the balance is looked at.
_ROUNDS = 10
#: A product and an order that no shop has.
_NOBODY = 2**31 - 1

Product = Mapping[str, object]


@pytest.fixture(scope="module")
def products(shop: Shop) -> list[Product]:
    """Return the products, as the shop lists them."""
    answer = shop.one(shop.get(_LIST))
    assert answer.status == 200, f"expected: 200; seen: {answer} {answer.body}"
    data = answer.data
    assert isinstance(data, dict), f"expected: an object; seen: {data}"
    found = data["products"]
    assert found, f"expected: products; seen: {data}"
    return list(found)


def _stocked(products: list[Product]) -> int:
    best = max(products, key=lambda product: int(str(product["stock"])))
    return int(str(best["id"]))


def test_list_has_whole_products(products: list[Product]) -> None:
    for product in products:
        assert set(product) == {"id", "name", "price", "stock"}, f"expected: id, name, price, stock; seen: {product}"
    numbers = [int(str(product["id"])) for product in products]
    assert numbers == sorted(numbers), f"expected: by id; seen: {numbers}"


def test_each_product_is_the_one_of_the_list(shop: Shop, products: list[Product]) -> None:
    answers = shop.ask([shop.get(f"{_LIST}/{product['id']}") for product in products])
    for product, answer in zip(products, answers, strict=True):
        assert answer.status == 200, f"expected: 200; seen: {answer} {answer.body}"
        assert answer.data == {**product, "stock": answer.data["stock"]}, f"expected: {product}; seen: {answer.body}"  # type: ignore[index]


#: What is sent, with what status and code it is refused.
_MISTAKES: Mapping[str, tuple[Callable[[Shop, int], Attempt], int, str]] = {
    "no such path": (lambda shop, _: shop.get("/api/nothing"), 404, "not_found"),
    "nothing of the shop": (lambda shop, _: shop.get("/"), 404, "not_found"),
    "no such product": (lambda shop, _: shop.get(f"{_LIST}/{_NOBODY}"), 404, "product_not_found"),
    "not a number": (lambda shop, _: shop.get(f"{_LIST}/one"), 404, "not_found"),
    "no such order": (lambda shop, _: shop.get(f"{_ORDERS}/{_NOBODY}"), 404, "order_not_found"),
    "wrong method": (lambda shop, _: shop.send("DELETE", _LIST), 405, "method_not_allowed"),
    "not JSON": (lambda shop, _: shop.send("POST", _ORDERS, "{"), 400, ""),
    "empty order": (lambda shop, _: shop.send("POST", _ORDERS, {}), 422, ""),
    "wrong types": (
        lambda shop, number: shop.send("POST", _ORDERS, {"customer_id": "x", "product_id": number, "quantity": 0}),
        422,
        "",
    ),
    "order of no product": (lambda shop, _: shop.order(_NOBODY), 404, "product_not_found"),
    "more than in stock": (lambda shop, number: shop.order(number, _NOBODY), 409, ""),
    "not announced as JSON": (
        lambda shop, _: shop.send("POST", _ORDERS, "{}", {"Content-Type": "text/plain"}),
        415,
        "",
    ),
    "too large": (lambda shop, _: shop.send("POST", _ORDERS, {"x": "y" * 20000}), 413, ""),
}


@pytest.fixture(scope="module")
def refusals(shop: Shop, products: list[Product]) -> Mapping[str, Outcome]:
    """Make all mistakes, in one run."""
    number = _stocked(products)
    answers = shop.ask([make(shop, number) for make, _, _ in _MISTAKES.values()])
    return dict(zip(_MISTAKES, answers, strict=True))


@pytest.mark.parametrize("mistake", _MISTAKES)
def test_mistake_is_answered_clearly(refusals: Mapping[str, Outcome], mistake: str) -> None:
    _, status, code = _MISTAKES[mistake]
    answer = refusals[mistake]
    assert answer.status == status, f"{mistake}: expected: {status}; seen: {answer} {answer.body}"
    data = answer.data
    assert isinstance(data, dict), f"{mistake}: expected: an object; seen: {data}"
    assert set(data["error"]) == {"code", "message", "details"}, f"{mistake}: seen: {data}"
    assert data["error"]["message"], f"{mistake}: expected: a message; seen: {data}"
    if code:
        assert data["error"]["code"] == code, f"{mistake}: expected: {code}; seen: {data}"
    assert_nothing_shows(mistake, answer)


def test_order_is_taken_and_is_a_row(shop: Shop, products: list[Product]) -> None:
    number = _stocked(products)
    stock = f"SELECT stock FROM products WHERE id = {number}"  # noqa: S608 - a number
    before = int(shop.query(stock))
    taken = shop.one(shop.order(number, 2))
    assert taken.status == 201, f"expected: 201; seen: {taken} {taken.body}"
    order = taken.data
    assert isinstance(order, dict), f"expected: an object; seen: {order}"
    place = taken.headers["location"]
    assert place == f"{_ORDERS}/{order['id']}", f"expected: the order's own path; seen: {place}"
    found = shop.one(shop.get(place))
    assert (found.status, found.data) == (200, order), f"expected: {order}; seen: {found} {found.body}"
    question = f"SELECT product_id, quantity, total_price FROM orders WHERE id = {order['id']:d}"  # noqa: S608 - a number
    row = shop.query(question).split("|")
    seen = [int(row[0]), int(row[1]), float(row[2])]
    wanted = [number, 2, order["total_price"]]
    assert seen == wanted, f"expected in the database: {wanted}; seen: {seen}"
    after = int(shop.query(stock))
    assert after == before - 2, f"expected: the stock is {before - 2}; seen: {after}"


def test_cache_misses_then_hits(shop: Shop, products: list[Product]) -> None:
    if not shop.caches():
        pytest.skip(NO_CACHE)
    shop.wait_for_cache()
    shop.forget_cached()
    answers = shop.ask([shop.get(_LIST)] * 3)
    seen = [answer.headers.get("x-cache") for answer in answers]
    assert seen == ["miss", "hit", "hit"], f"expected: a miss, then hits; seen: {seen}"
    assert len({answer.body for answer in answers}) == 1, f"expected: the same answer; seen: {answers}"


@pytest.fixture
def changed_behind_the_cache(shop: Shop, products: list[Product]) -> Iterator[str]:
    """Have the cache keep the list of products, then give one another name in the database; return that name."""
    if not shop.caches():
        pytest.skip(NO_CACHE)
    shop.wait_for_cache()
    first, other = products[0], "a name that nobody has read yet"
    where = f"WHERE id = {first['id']}"
    was = str(first["name"]).replace("'", "''")
    try:
        shop.query(f"UPDATE products SET name = '{other}' {where}")  # noqa: S608 - ours
        yield other
    finally:
        shop.query(f"UPDATE products SET name = '{was}' {where}")  # noqa: S608 - ours
        shop.forget_cached()


def test_hit_is_what_the_cache_has_and_what_was_written_shows_when_it_has_gone(
    shop: Shop, changed_behind_the_cache: str
) -> None:
    hit = shop.one(shop.get(_LIST))
    seen = (hit.headers.get("x-cache"), changed_behind_the_cache in hit.body)
    assert seen == ("hit", False), f"expected: a hit, as it was cached; seen: {hit} {hit.headers} {hit.body}"
    left = shop.cached_for()
    limit = round(shop.plan.timeouts.cache * 1000)
    assert left, "expected: the cache has the products; seen: it is empty"
    for key, milliseconds in left.items():
        assert 0 < milliseconds <= limit, f"{key}: expected: it goes in {limit} ms or sooner; seen: {milliseconds}"
    shop.forget_cached()
    miss = shop.one(shop.get(_LIST))
    seen = (miss.headers.get("x-cache"), changed_behind_the_cache in miss.body)
    assert seen == ("miss", True), f"expected: a miss, with the new name; seen: {miss} {miss.headers} {miss.body}"


def test_hit_does_not_make_it_stay_longer(shop: Shop, products: list[Product]) -> None:
    if not shop.caches():
        pytest.skip(NO_CACHE)
    shop.wait_for_cache()
    shop.shorten_cached(_SOON)
    hit = shop.one(shop.get(_LIST))
    assert hit.headers.get("x-cache") == "hit", f"expected: a hit; seen: {hit} {hit.headers}"
    left = shop.cached_for()
    shop.forget_cached()
    assert left, "expected: the cache has the products; seen: it is empty"
    assert max(left.values()) <= _SOON, f"expected: it goes in {_SOON} ms or sooner; seen: {left}"


@pytest.fixture
def not_yet_there(shop: Shop, products: list[Product]) -> Iterator[int]:
    """Lend the number of a product that there is not; one that is made is removed again."""
    number = 1 + int(shop.query("SELECT max(id) FROM products"))
    yield number
    shop.query(f"DELETE FROM products WHERE id = {number}")  # noqa: S608 - a number
    shop.forget_cached()


def test_that_a_product_is_not_there_is_not_cached(shop: Shop, not_yet_there: int) -> None:
    path = f"{_LIST}/{not_yet_there}"
    absent = shop.one(shop.get(path))
    assert absent.status == 404, f"expected: 404; seen: {absent} {absent.body}"
    shop.query(f"INSERT INTO products VALUES ({not_yet_there}, 'a new one', 1, 1)")  # noqa: S608 - a number
    found = shop.one(shop.get(path))
    assert found.status == 200, f"expected: it is there at once; seen: {found} {found.body}"


def test_no_answer_tells_the_version_of_its_server(shop: Shop, refusals: Mapping[str, Outcome]) -> None:
    for answer in (shop.one(shop.get(_LIST)), *refusals.values()):
        seen = answer.headers.get("server")
        assert seen == "nginx", f"{answer.attempt.path}: expected: Server: nginx; seen: {seen}"


def test_full_cache_makes_room(shop: Shop, products: list[Product]) -> None:
    """It is small by configuration, and forgets what is used least instead of refusing what is new."""
    if not shop.caches():
        pytest.skip(NO_CACHE)
    shop.wait_for_cache()
    try:
        kept = shop.crowd_caches(_CROWD_MB)
        assert kept, "expected: a cache that can be filled; seen: none"
        assert max(kept) < _CROWD_MB, f"expected: fewer than {_CROWD_MB} MiB are kept; seen: {kept}"
        answers = shop.ask([shop.get(_LIST)] * 2)
    finally:
        shop.forget_cached()
    seen = [answer.headers.get("x-cache") for answer in answers]
    assert seen[-1] == "hit", f"expected: what is asked for now is kept; seen: {seen}"


def test_order_shows_in_the_stock_when_the_cache_has_forgotten_it(shop: Shop, products: list[Product]) -> None:
    path = f"{_LIST}/{_stocked(products)}"

    def stock() -> int:
        shop.forget_cached()
        found = shop.one(shop.get(path)).data
        assert isinstance(found, dict), f"expected: a product; seen: {found}"
        return int(found["stock"])

    before = stock()
    taken = shop.one(shop.order(_stocked(products), 3))
    assert taken.status == 201, f"expected: 201; seen: {taken} {taken.body}"
    after = stock()
    assert after == before - 3, f"expected: the stock is {before - 3}; seen: {after}"


def test_requests_are_spread(shop: Shop, plan: Plan) -> None:
    """The edge turns through its gateways, one after the other.

    A gateway's choice of a product replica is not promised, but all of them work.
    """
    gateways = [item.name for service, item in plan.replicas() if service.program is Program.GATEWAY]
    reachable = {
        item.name for service in plan.targets(shop.entry.service, Program.GATEWAY) for item in service.replicas
    }
    edges = len(plan.service(shop.entry.service).replicas)
    answers = shop.ask([shop.get(_LIST)] * (_ROUNDS * len(reachable)))
    assert {answer.status for answer in answers} == {200}, f"expected: 200; seen: {[str(item) for item in answers]}"
    served = Counter(answer.headers["x-served-by"] for answer in answers)
    assert set(served) == reachable, f"expected: each of {reachable} of {gateways}; seen: {served}"
    for name, count in served.items():
        assert abs(count - _ROUNDS) <= edges, (
            f"{name}: expected: {_ROUNDS} requests (give or take {edges}); seen: {served}"
        )
    asked = Counter(answer.headers["x-product-replica"] for answer in answers)
    replicas = {
        item.name
        for gateway in plan.targets(shop.entry.service, Program.GATEWAY)
        for service in plan.targets(gateway.name, Program.PRODUCT)[:1]
        for item in service.replicas
    }
    assert set(asked) == replicas, f"expected: all of {replicas} are used; seen: {asked}"
