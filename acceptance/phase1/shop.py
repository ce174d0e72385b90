"""The shop as its customers see it: HTTP to the published port, from outside of the lab."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from acceptance.traffic import Attempt, Outcome, Prober
from underlay.hosts.base import Host, Lab
from underlay.topology import Program, Replica, Service
from underlay.wait import NotYet, until

#: Where the database keeps its socket on the host, below the name of its replica.
_SOCKETS = "/run/underlay/phase1"
#: Why a test of the cache is left out.
NO_CACHE = "by the plan, not every product service may reach a cache"
_JSON = {"Content-Type": "application/json"}


class Shop:
    """The way to the shop, and to what it keeps: its cache and its database, asked on the host they run on."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._prober = Prober(lab.outside, lab.plan, outside=True)
        self.entry = lab.plan.published[0]
        self._address = str(lab.plan.host(self.entry.host).address.ip)

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

    def ask(self, requests: Sequence[Attempt]) -> tuple[Outcome, ...]:
        """Send requests one after the other, each in a connection of its own."""
        answers = self._prober.attempt(requests)
        for answer in answers:
            answer.assert_connected()
        return answers

    def one(self, request: Attempt) -> Outcome:
        """Send one request."""
        return self.ask([request])[0]

    def wait_for(self, request: Attempt, status: int, header: tuple[str, str] | None = None) -> Outcome:
        """Send a request until it is answered with that status (and header); fail after the plan's time."""

        def answered() -> Outcome | NotYet:
            answer = self._prober.one(request)
            good = answer.status == status and (header is None or answer.headers.get(header[0]) == header[1])
            return answer if good else NotYet(f"{answer} {answer.headers} {answer.body[:200]}")

        wanted = f"{request.method} {request.path} answered with {status}{f' and {header}' if header else ''}"
        return until(answered, deadline_s=self._lab.plan.timeouts.ready, what=wanted, where="outside")

    def caches(self) -> tuple[Service, ...]:
        """Return the caches that products come through; none unless each product service behind the entry has one.

        As the plan says it: whom the entry may reach, and of several of one kind the first (provision takes that one).
        """
        plan = self._lab.plan
        gateways = plan.targets(self.entry.service, Program.GATEWAY)
        products = {product.name for item in gateways for product in plan.targets(item.name, Program.PRODUCT)[:1]}
        found = [plan.targets(name, Program.REDIS)[:1] for name in sorted(products)]
        return tuple(cache for (cache,) in found) if all(found) else ()

    def wait_for_cache(self) -> None:
        """Wait until every product replica uses the cache: after a failure each leaves it alone for a moment."""
        replicas = sum(len(service.replicas) for service in self._lab.plan.services)

        def used() -> bool | NotYet:
            seen = [answer.headers.get("x-cache") for answer in self.ask([self.get("/api/products")] * replicas)]
            return True if set(seen) == {"hit"} else NotYet(str(seen))

        until(used, deadline_s=self._lab.plan.timeouts.ready, what="use of the cache", where="outside")

    def instance(self, program: Program) -> tuple[Host, Service, Replica] | None:
        """Return the first replica that runs a program, and its host; None if the plan has none."""
        for service, replica in self._lab.plan.replicas():
            if service.program is program:
                return self._lab.hosts[service.host], service, replica
        return None

    def query(self, statement: str) -> str:
        """Ask the shop's database, on its host, and return what it prints."""
        found = self.instance(Program.POSTGRES)
        assert found, "expected: a plan with a database"
        host, service, replica = found
        return host.run(
            ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--host", f"{_SOCKETS}/{replica.name}",
             "--port", str(service.port), "--username", "postgres", "--dbname", "shop", "--command", statement]
        ).stdout.strip()  # fmt: skip

    def forget_cached(self) -> None:
        """Empty the caches that products come through."""
        for service in self.caches():
            for replica in service.replicas:
                host = self._lab.hosts[service.host]
                host.run(["redis-cli", "-h", str(replica.ip), "-p", str(service.port), "FLUSHALL"])
