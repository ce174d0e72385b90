"""The shop as its customers see it: HTTP to the published port, from outside of the lab."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence

from acceptance.customer import Customer
from acceptance.suite.stage import Seat, Stage
from acceptance.traffic import Attempt, Outcome, outside_prober
from underlay.topology import Program, Service
from underlay.wait import NotYet, until

#: Why a test of the cache is left out.
NO_CACHE = "by the plan, not every product service may reach a cache"
#: Lua for Redis: each key, and what is left to it.
_LEFT = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do found[#found + 1] = key .. ' ' .. redis.call('PTTL', key) end
return found
"""
#: Has each key go after so many milliseconds.
_SHORTEN = "for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('PEXPIRE', key, ARGV[1]) end"
#: Writes as many values of a mebibyte as it is told. Redis makes room when a script has ended.
_CROWD = """
local large = string.rep('x', 1048576)
for number = 1, tonumber(ARGV[1]) do redis.call('SET', 'crowd_' .. number, large) end
"""
#: What redis-cli says where nobody listens.
_REFUSED = "Connection refused"
_JSON = {"Content-Type": "application/json"}


#: Of a program's insides: its traceback, its libraries, its statements, what servers say, addresses of others.
_INSIDES = re.compile(r"Traceback|File \"|psycopg|aiohttp|redis\.|SELECT |couldn't|server closed|\d+\.\d+\.\d+\.\d+")


def assert_nothing_shows(what: str, answer: Outcome) -> None:
    """Fail if the body of an answer tells anything of the insides of a program."""
    seen = _INSIDES.search(answer.body)
    assert seen is None, (
        f"{what}: expected: nothing of the program shows; seen: {seen[0] if seen else ''}: {answer.body}"
    )


class Shop:
    """The way to the shop, and to what it keeps: its cache and its database, asked on the host they run on."""

    def __init__(self, stage: Stage, customer: Customer) -> None:
        self._stage, self.plan = stage, stage.plan
        self._customer = customer
        self._prober = outside_prober(stage.lab)
        self.entry = self.plan.published[0]
        self._address = str(self.plan.host(self.entry.host).address.ip)

    def get(self, path: str) -> Attempt:
        """Return a GET of a path."""
        return Attempt("http", self._address, self.entry.port, path=path)

    def send(
        self, method: str, path: str, body: str | Mapping[str, object] = "", headers: Mapping[str, str] = _JSON
    ) -> Attempt:
        """Return another request; a mapping is sent as JSON."""
        text = body if isinstance(body, str) else json.dumps(body)
        return Attempt(
            "http", self._address, self.entry.port, method=method, path=path, headers=dict(headers), body=text
        )

    def order(self, product: int, quantity: int = 1) -> Attempt:
        """Return an order."""
        return self.send("POST", "/api/orders", {"customer_id": 1, "product_id": product, "quantity": quantity})

    def send_all(self, requests: Sequence[Attempt]) -> tuple[Outcome, ...]:
        """Send requests one after the other, each in a connection of its own, whatever comes of them."""
        return tuple(self._customer.ask(requests))

    def ask(self, requests: Sequence[Attempt]) -> tuple[Outcome, ...]:
        """Do the same with requests that must all be answered."""
        answers = self.send_all(requests)
        for answer in answers:
            answer.assert_connected()
        return answers

    def one(self, request: Attempt) -> Outcome:
        """Send one request."""
        return self.ask([request])[0]

    def hesitate(self, request: Attempt, meanwhile: Callable[[], None]) -> Outcome:
        """Send a request whose body comes in two parts, with something done after the first."""
        return self._customer.hesitate(request, meanwhile)

    def knock(self) -> Outcome:
        """Ask the entry for its first words, by a connection that does not wait long for them."""
        payload = f"GET /health HTTP/1.0\r\nHost: {self._address}\r\n\r\n".encode().hex()
        return self._prober.one(Attempt("tcp", self._address, self.entry.port, payload=payload, reply=True))

    def wait_for(self, request: Attempt, status: int, header: tuple[str, str] | None = None) -> Outcome:
        """Send a request until it is answered with that status (and header); fail after the plan's time."""

        def answered() -> Outcome | NotYet:
            answer = self._customer.one(request)
            good = answer.status == status and (header is None or answer.headers.get(header[0]) == header[1])
            return answer if good else NotYet(f"{answer} {answer.headers} {answer.body[:200]}")

        wanted = f"{request.method} {request.path} answered with {status}{f' and {header}' if header else ''}"
        return until(answered, deadline_s=self.plan.timeouts.ready, what=wanted, where="outside")

    def caches(self) -> tuple[Service, ...]:
        """Return the caches that products come through; none unless each product service behind the entry has one.

        As the plan says it: whom the entry may reach, and of several of one kind the first (provision takes that one).
        """
        plan = self.plan
        gateways = plan.targets(self.entry.service, Program.GATEWAY)
        products = {product.name for item in gateways for product in plan.targets(item.name, Program.PRODUCT)[:1]}
        found = [plan.targets(name, Program.REDIS)[:1] for name in sorted(products)]
        return tuple(cache for (cache,) in found) if all(found) else ()

    def wait_for_cache(self) -> None:
        """Wait until every product replica uses the cache: after a failure each leaves it alone for a moment."""
        replicas = sum(len(service.replicas) for service in self.plan.services)

        def used() -> bool | NotYet:
            seen = [answer.headers.get("x-cache") for answer in self.ask([self.get("/api/products")] * replicas)]
            return True if set(seen) == {"hit"} else NotYet(str(seen))

        until(used, deadline_s=self.plan.timeouts.ready, what="use of the cache", where="outside")

    def wait_for_replicas(self) -> None:
        """Wait until each replica that an answer names gives some: who failed is left alone for a moment."""
        plan, ways = self.plan, {"x-served-by": Program.GATEWAY, "x-product-replica": Program.PRODUCT}
        wanted = {
            header: {item.name for service, item in plan.replicas() if service.program is program}
            for header, program in ways.items()
        }
        # Edges and gateways each take their turns: after so many all have been everybody's.
        requests = [self.get("/api/products")] * math.prod(map(len, wanted.values()))

        def heard() -> bool | NotYet:
            answers = self.ask(requests)
            seen = {header: {answer.headers.get(header) for answer in answers} for header in wanted}
            return seen == wanted or NotYet(str(seen))

        until(heard, deadline_s=plan.timeouts.ready, what=f"answers of {wanted}", where="outside")

    def database(self) -> Seat | None:
        """Return the database that the shop keeps its products and orders in; None if the plan has none."""
        return next((seat for seat in self._stage.seats() if seat.service.program is Program.POSTGRES), None)

    def query(self, statement: str) -> str:
        """Ask the shop's database, on its host, and return what it prints."""
        found = self.database()
        assert found, "expected: a plan with a database"
        return self._stage.query(found, statement)

    def forget_cached(self) -> None:
        """Empty the caches that products come through."""
        self._ask_caches("FLUSHALL")

    def crowd_caches(self, mebibytes: int) -> list[int]:
        """Write so much into each cache, in values of a mebibyte; return how many keys each has kept."""
        self._ask_caches("EVAL", _CROWD, "0", str(mebibytes))
        return [int(line) for line in self._ask_caches("DBSIZE")]

    def cached_for(self) -> Mapping[str, int]:
        """Return the keys that the caches have, with the milliseconds that are left to each; -1 is for ever."""
        lines = (line.split() for line in self._ask_caches("EVAL", _LEFT, "0") if line)  # nothing is an empty line
        return {key: int(left) for key, left in lines}

    def shorten_cached(self, milliseconds: int) -> None:
        """Have all that the caches keep go sooner."""
        self._ask_caches("EVAL", _SHORTEN, "0", str(milliseconds))

    def _ask_caches(self, *words: str) -> list[str]:
        caches = {service.name for service in self.caches()}
        lines: list[str] = []
        for seat in self._stage.seats():
            if seat.service.name in caches:
                lines += self._ask_cache(seat, words)
        return lines

    def _ask_cache(self, seat: Seat, words: Sequence[str]) -> Sequence[str]:
        """Ask one; who has just been started may not listen yet."""
        command = ["redis-cli", "-h", str(seat.address), "-p", str(seat.service.port), *words]

        def answered() -> Sequence[str] | NotYet:
            done = self._stage.machine(seat).run(command, check=False)
            if not done.ok and _REFUSED in done.stderr:
                return NotYet(done.stderr.strip())
            assert done.ok, f"{seat.host}/{seat.name}: expected: it answers; seen: {done.stderr or done.stdout}"
            return done.stdout.splitlines()

        return until(answered, deadline_s=self.plan.timeouts.ready, what="an answer of the cache", where=seat.name)
