"""Traffic from any place of the lab to any other: asks ``probe.py`` there, and reads its answers."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from underlay.hosts.base import Lab, Machine
from underlay.topology import Plan

DNS_PORT = 53
#: RFC 1035, section 4.1.1.
NO_ERROR, SERVER_FAILED, NAME_ERROR = 0, 2, 3
#: Attempts in one batch that may time out; the rest is then not tried any more.
_SLOW_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt; see ``probe.py``. ``namespace`` None is the machine's own network; ``who`` is its maker."""

    kind: str
    address: str
    port: int
    namespace: str | None = None
    payload: str = ""
    reply: bool = False
    method: str = "GET"
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    who: str = ""


def outward(kind: str, address: IPv4Address, port: int) -> Attempt:
    """Return an attempt from a machine's own network."""
    return Attempt(kind, str(address), port)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt, and the attempt itself, so that a message can say all of it."""

    where: str
    attempt: Attempt
    outcome: str
    error: str
    local: str
    reply: str
    seconds: float
    denied: int
    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def connected(self) -> bool:
        """Whether an answer, or a connection, came."""
        return self.outcome == "connected"

    @property
    def reply_text(self) -> str:
        """The reply as text: for our own listeners, the address they saw us come from."""
        return bytes.fromhex(self.reply).decode(errors="replace")

    @property
    def data(self) -> object:
        """The body of an HTTP answer, read as JSON."""
        return json.loads(self.body)

    @property
    def local_port(self) -> int:
        """The port that the attempt was made from."""
        return int(self.local.rpartition(":")[2])

    def __str__(self) -> str:
        inner = self.attempt.who or self.attempt.namespace
        place = f"{self.where}/{inner}" if inner else self.where
        target = f"{self.attempt.kind} {self.attempt.address}:{self.attempt.port}"
        return (
            f"{place} to {target}: {self.outcome} {self.error} in {self.seconds:.3f} s, "
            f"deny counter +{self.denied}{f', {self.status}' if self.status else ''}"
        )

    def assert_connected(self) -> None:
        """Fail unless the attempt succeeded."""
        assert self.outcome == "connected", f"expected: connected; seen: {self}"

    def assert_refused(self, within: float) -> None:
        """Fail unless the deny rule refused it: an answer, sooner than ``within`` seconds, and the counter rose."""
        assert self.outcome == "refused", f"expected: refused at once by the deny rule; seen: {self}"
        assert self.seconds < within, f"expected: refused in less than {within:g} s; seen: {self}"
        assert self.denied >= 1, f"expected: refused by the deny rule, whose counter rises; seen: {self}"

    def assert_dropped(self) -> None:
        """Fail unless the deny rule dropped it: no answer, and the counter rose."""
        assert self.outcome == "dropped", f"expected: dropped by the deny rule; seen: {self}"
        assert self.denied >= 1, f"expected: the deny rule's counter rises; seen: {self}"


@dataclass(frozen=True, slots=True)
class Listener:
    """Where to listen; see ``probe.py``."""

    protocol: str
    namespace: str | None = None
    address: str = "0.0.0.0"  # noqa: S104 - inside the lab
    port: int = 0


class Listening:
    """Listeners that are up: their ports, and after the block what each of them saw."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.ports = tuple(ports)
        self.seen: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the resolver of a place said of a name."""

    addresses: frozenset[IPv4Address]
    error: str
    seconds: float


class Prober:
    """Traffic from one machine. ``chain`` counts what is denied; None where there is none."""

    def __init__(self, machine: Machine, plan: Plan, *, outside: bool = False, chain: str | None = None) -> None:
        self.machine = machine
        self._plan = plan
        self._chain = chain
        here = str(Path(__file__).with_name("probe.py"))
        self._program = (sys.executable, here) if outside else ("python3", "-m", "acceptance.probe")

    def attempt(self, attempts: Sequence[Attempt]) -> tuple[Outcome, ...]:
        """Make all attempts, one after the other, in one run."""
        timeouts = self._plan.timeouts
        request = {
            "do": "attempt",
            "timeout": timeouts.connect,
            "chain": self._chain,
            "limit": timeouts.command,
            "patience": _SLOW_ATTEMPTS,
            "attempts": [asdict(item) for item in attempts],
        }
        limit = timeouts.command + _SLOW_ATTEMPTS * timeouts.connect
        answers = self._ask(request, timeout=limit)
        assert isinstance(answers, list)
        pairs = zip(attempts, answers, strict=True)
        return tuple(Outcome(where=self.machine.name, attempt=item, **answer) for item, answer in pairs)

    def one(self, item: Attempt) -> Outcome:
        """Make one attempt."""
        return self.attempt([item])[0]

    @contextmanager
    def listening(self, listeners: Sequence[Listener], lifetime: float | None = None) -> Iterator[Listening]:
        """Listen while the block runs. A listener that is forgotten ends by itself, after ``lifetime`` seconds."""
        lifetime = lifetime or 2 * self._plan.timeouts.command
        answer = self._ask({"do": "listen", "listeners": [asdict(item) for item in listeners], "lifetime": lifetime})
        assert isinstance(answer, dict)
        result = Listening(answer["ports"])
        try:
            yield result
        finally:
            seen = self._ask({"do": "collect", "control": answer["control"]})
            assert isinstance(seen, list)
            result.seen = tuple(tuple(item) for item in seen)

    def resolve(self, names: Sequence[str], enter: Sequence[str] = ()) -> Mapping[str, Resolved]:
        """Ask the resolver as a program there does; ``enter`` are the words that put a program elsewhere than here."""
        answer = self._ask({"do": "resolve", "names": list(names)}, enter=enter)
        assert isinstance(answer, dict)
        return {
            name: Resolved(frozenset(map(IPv4Address, item["addresses"])), item["error"], item["seconds"])
            for name, item in answer.items()
        }

    def _ask(self, request: object, *, timeout: float | None = None, enter: Sequence[str] = ()) -> object:
        done = self.machine.run([*enter, *self._program], stdin=json.dumps(request), timeout=timeout)
        answer: object = json.loads(done.stdout)
        return answer


def outside_prober(lab: Lab) -> Prober:
    """Return traffic from the machine outside of a lab, where nothing is counted."""
    return Prober(lab.outside, lab.plan, outside=True)


def dns_question(name: str, kind: int = 1) -> str:
    """Return a question about a name (RFC 1035, section 4.1), as hexadecimal digits; ``kind`` 1 asks for addresses."""
    return (struct.pack("!6H", 0x2A2A, 0x0100, 1, 0, 0, 0) + _labels(name) + struct.pack("!2H", kind, 1)).hex()


def dns_holds(reply: str, name: str) -> bool:
    """Return whether an answer holds a name that is written in full, as the only name of a record is."""
    return _labels(name).hex() in reply


def _labels(name: str) -> bytes:
    labels = name.rstrip(".").encode().split(b".")
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def dns_answer(reply: str) -> tuple[int, int]:
    """Return the answer's response code and its number of records."""
    _, flags, _, answers = struct.unpack_from("!4H", bytes.fromhex(reply))
    return flags & 15, answers
