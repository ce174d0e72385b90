"""The names of the plan in each namespace, and no others; nobody upstream is ever asked."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest

from acceptance.conftest import Snapshots
from acceptance.modules import LabHost
from acceptance.suite.stage import Seat, Stage
from acceptance.traffic import (
    DNS_PORT,
    NO_ERROR,
    Listener,
    Outcome,
    Prober,
    Resolved,
    dns_answer,
    dns_holds,
    dns_question,
    outward,
)
from underlay.topology import Plan

Probers = Mapping[str, Prober]


@dataclass(frozen=True, slots=True)
class Question:
    """A question that is put to the server itself: about a name, of a kind; and what it must answer to it."""

    name: str
    kind: str
    code: int
    records: int = 0
    told: str = ""
    """A name that must be in the answer."""

    @property
    def payload(self) -> str:
        """The packet, as hexadecimal digits."""
        return dns_question(self.name, _KINDS[self.kind])


@dataclass(frozen=True, slots=True)
class Names:
    """What the resolver of each namespace said, what the server answered, and which packets left each host.

    ``unknown`` are names that nobody has; ``answers`` has the raw answers to questions, by namespace; ``control`` is a
    packet that was sent out on purpose, by host.
    """

    unknown: Sequence[str]
    resolved: Mapping[str, Mapping[str, Resolved]]
    answers: Mapping[str, Sequence[tuple[Question, Outcome]]]
    left: Mapping[str, tuple[str, ...]]
    control: Mapping[str, Outcome]


#: RFC 1035, section 3.2.2; RFC 3596; RFC 2782.
_KINDS = {"A": 1, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33}
#: An address of nobody: TEST-NET-3 (RFC 5737).
_FOREIGN = IPv4Address("203.0.113.7")
_ELSEWHERE = "example.org"
#: So many unknown names are asked for as programs do it, which takes long where nobody answers.
_RESOLVED = 3


def _unknown(plan: Plan) -> tuple[str, ...]:
    """Return names that nobody has: near those of the plan, of its tiers, and of the world."""
    first = plan.services[0]
    near = ("nobody", f"{first.name}-{len(first.replicas) + 1}", f"{first.name}-0", "www", "mail", secrets.token_hex(8))
    others = (*(tier.name for tier in plan.tiers), plan.lab)
    known = {service.name for service in plan.services} | {replica.name for _, replica in plan.replicas()}
    labels = [name for name in dict.fromkeys((*near, *others)) if name not in known]
    return ("nobody", f"www.{_ELSEWHERE}", *(f"{label}.{plan.domain}" for label in labels), secrets.token_hex(8),
            f"{first.name}.{_ELSEWHERE}", f"{first.name}.{plan.domain}.{_ELSEWHERE}",
            f"a.{first.name}.{plan.domain}")  # fmt: skip


def _questions(stage: Stage, seat: Seat, unknown: Sequence[str]) -> Iterator[Question]:
    """Yield what the server is asked: what nobody has does not exist, and what exists has addresses alone."""
    plan = stage.plan
    # Hosts have their names from a file, which is theirs (hosts(5)); the server does not know them.
    code, _ = stage.unknown(seat)
    for name in (*unknown, *(f"{host.name}.{plan.domain}" for host in plan.hosts)):
        yield Question(name, "A", code)
    for address, name in stage.reverse(seat).items():
        yield Question(address.reverse_pointer, "PTR", NO_ERROR, 1, name)
    for name, addresses in stage.names(seat).items():
        if name.endswith(f".{plan.domain}"):
            yield Question(name, "A", NO_ERROR, len(addresses))
            for kind in ("AAAA", "MX", "TXT", "SRV"):
                yield Question(name, kind, stage.lacking(seat, kind))
    yield Question(_FOREIGN.reverse_pointer, "PTR", code)
    yield Question(plan.underlay.gateway.ip.reverse_pointer, "PTR", code)


@pytest.fixture(scope="module")
def names(stage: Stage, probers: Probers, snapshots: Snapshots) -> Names:
    """Ask for all names in all namespaces, while all DNS packets on the underlay are watched."""
    resolved: dict[str, Mapping[str, Resolved]] = {}
    answers: dict[str, list[tuple[Question, Outcome]]] = {}
    left: dict[str, tuple[str, ...]] = {}
    control: dict[str, Outcome] = {}
    lab, plan = stage.lab, stage.plan
    unknown = _unknown(plan)
    for name, here in stage.by_host().items():
        host, prober = lab.hosts[name], probers[name]
        wire = snapshots[host.name].root.with_address(host.address)
        with prober.listening([Listener("dns-packets", address=wire.name)]) as watch:
            for seat in here:
                resolved[seat.name] = stage.resolve(seat, [*stage.names(seat), *unknown[:_RESOLVED]])
            asked = {seat: list(_questions(stage, seat, unknown)) for seat in here}
            goals = {seat: (stage.resolver(seat), DNS_PORT) for seat in here}
            outcomes = iter(
                prober.attempt(
                    [seat.attempt("udp", *goals[seat], item.payload) for seat, items in asked.items() for item in items]
                )
            )
            answers |= {seat.name: [(item, next(outcomes)) for item in items] for seat, items in asked.items()}
            control[host.name] = prober.one(outward("udp", lab.outside.address, DNS_PORT))
        left[host.name] = watch.seen[0]
    return Names(unknown, resolved, answers, left, control)


def test_names_give_the_planned_addresses(names: Names, seat: Seat, stage: Stage) -> None:
    where = f"{seat.host}/{seat.name}"
    for name, planned in stage.names(seat).items():
        seen = names.resolved[seat.name][name]
        assert seen.addresses == planned, f"{where}: expected: {name} is {sorted(map(str, planned))}; seen: {seen}"


def test_unknown_names_do_not_exist(names: Names, seat: Seat, stage: Stage) -> None:
    where = f"{seat.host}/{seat.name}"
    for name in names.unknown[:_RESOLVED]:
        seen = names.resolved[seat.name][name]
        _, wanted = stage.unknown(seat)
        assert seen.error == wanted, f"{where}: expected: {name} does not exist ({wanted}); seen: {seen}"
        assert seen.seconds < stage.plan.timeouts.connect, f"{where}: expected: told so at once; seen: {seen}"


def test_server_answers_for_the_names_of_the_plan_and_with_addresses_alone(names: Names, seat: Seat) -> None:
    for question, outcome in names.answers[seat.name]:
        outcome.assert_connected()
        wanted, seen = (question.code, question.records), dns_answer(outcome.reply)
        assert seen == wanted, (
            f"{seat.host}/{seat.name}: {question.kind} of {question.name}: "
            f"expected: code {wanted[0]}, {wanted[1]} records; seen: code {seen[0]}, {seen[1]} records"
        )
        assert not question.told or dns_holds(outcome.reply, question.told), (
            f"{seat.host}/{seat.name}: {question.kind} of {question.name}: "
            f"expected: {question.told}; seen: {outcome.reply}"
        )


def test_nothing_leaks_upstream(names: Names, plan: Plan, busy_host: str) -> None:
    control = f"{plan.host(busy_host).address.ip}:{names.control[busy_host].local_port} to "
    ours = [line for line in names.left[busy_host] if line.startswith(control)]
    assert ours, f"{busy_host}: expected: the packet sent on purpose is seen; seen: {names.left[busy_host]}"
    strangers = [line for line in names.left[busy_host] if line not in ours]
    assert strangers == [], f"{busy_host}: expected: no other DNS packet on the underlay; seen: {strangers}"


def test_each_namespace_has_a_resolver_of_its_own(stage: Stage, seat: Seat, space: LabHost) -> None:
    line = f"nameserver {stage.resolver(seat)}"
    own = space.file("/etc/resolv.conf").content_string.splitlines()
    assert line in own, f"{space.name}: expected in /etc/resolv.conf: {line}; seen: {own}"
    host = LabHost(stage.machine(seat), stage.plan)
    theirs = host.file("/etc/resolv.conf").content_string.splitlines()
    assert line not in theirs, f"{host.name}: expected: its own file has no {line}; seen: {theirs}"
