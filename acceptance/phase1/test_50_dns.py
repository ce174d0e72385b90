"""The names of the plan in each namespace, and no others; nobody upstream is ever asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from acceptance.phase1.cases import Seat, seats
from acceptance.phase1.conftest import Snapshots
from acceptance.traffic import (
    DNS_PORT,
    NAME_ERROR,
    Attempt,
    Listener,
    Outcome,
    Prober,
    Resolved,
    dns_answer,
    dns_question,
)
from underlay.hosts.base import Lab
from underlay.topology import Plan, dns_names

Probers = Mapping[str, Prober]


@dataclass(frozen=True, slots=True)
class Names:
    """What the resolver of each namespace said, what the server answered, and which packets left each host.

    ``unknown`` has the raw answers to questions for unknown names, by namespace; ``control`` is a packet that was sent
    out on purpose, by host.
    """

    resolved: Mapping[str, Mapping[str, Resolved]]
    unknown: Mapping[str, tuple[Outcome, ...]]
    left: Mapping[str, tuple[str, ...]]
    control: Mapping[str, Outcome]


def _known(plan: Plan) -> dict[str, frozenset[object]]:
    full = {name: frozenset[object](addresses) for name, addresses in dns_names(plan).items()}
    return full | {name.removesuffix(f".{plan.domain}"): addresses for name, addresses in full.items()}


def _unknown(plan: Plan) -> tuple[str, ...]:
    return ("nobody", f"nobody.{plan.domain}", "www.example.org")


@pytest.fixture(scope="module")
def names(lab: Lab, plan: Plan, probers: Probers, snapshots: Snapshots) -> Names:
    """Ask for all names in all namespaces, while all DNS packets on the underlay are watched."""
    resolved: dict[str, Mapping[str, Resolved]] = {}
    unknown: dict[str, tuple[Outcome, ...]] = {}
    left: dict[str, tuple[str, ...]] = {}
    control: dict[str, Outcome] = {}
    asked = (*_known(plan), *_unknown(plan))
    for host in lab.hosts.values():
        here = [seat for seat in seats(plan) if seat.service.host == host.name]
        if not here:
            continue
        prober = probers[host.name]
        wire = snapshots[host.name].root.with_address(host.address)
        with prober.listening([Listener("dns-packets", address=wire.name)]) as watch:
            for seat in here:
                resolved[seat.replica.name] = prober.resolve(asked, seat.replica.namespace)
            attempts = [
                Attempt("udp", str(seat.tier.gateway.ip), DNS_PORT, seat.replica.namespace, payload=dns_question(name))
                for seat in here
                for name in _unknown(plan)
            ]
            outcomes = prober.attempt(attempts)
            count = len(_unknown(plan))
            for place, seat in enumerate(here):
                unknown[seat.replica.name] = outcomes[place * count : (place + 1) * count]
            control[host.name] = prober.one(Attempt("udp", str(lab.outside.address), DNS_PORT))
        left[host.name] = watch.seen[0]
    return Names(resolved, unknown, left, control)


def test_names_give_the_planned_addresses(names: Names, seat: Seat, plan: Plan) -> None:
    where = f"{seat.service.host}/{seat.replica.namespace}"
    for name, planned in _known(plan).items():
        seen = names.resolved[seat.replica.name][name]
        assert seen.addresses == planned, f"{where}: expected: {name} is {sorted(map(str, planned))}; seen: {seen}"


def test_unknown_names_do_not_exist(names: Names, seat: Seat, plan: Plan) -> None:
    where = f"{seat.service.host}/{seat.replica.namespace}"
    for name in _unknown(plan):
        seen = names.resolved[seat.replica.name][name]
        assert seen.error == "EAI_NONAME", f"{where}: expected: {name} does not exist; seen: {seen}"
        assert seen.seconds < plan.timeouts.connect, f"{where}: expected: told so at once; seen: {seen}"
    for name, outcome in zip(_unknown(plan), names.unknown[seat.replica.name], strict=True):
        outcome.assert_connected()
        code, _ = dns_answer(outcome.reply)
        assert code == NAME_ERROR, f"{where}: expected: NXDOMAIN ({NAME_ERROR}) for {name}; seen: code {code}"


def test_nothing_leaks_upstream(names: Names, plan: Plan, busy_host: str) -> None:
    control = f"{plan.host(busy_host).address.ip}:{names.control[busy_host].local_port} to "
    ours = [line for line in names.left[busy_host] if line.startswith(control)]
    assert ours, f"{busy_host}: expected: the packet sent on purpose is seen; seen: {names.left[busy_host]}"
    strangers = [line for line in names.left[busy_host] if line not in ours]
    assert strangers == [], f"{busy_host}: expected: no other DNS packet on the underlay; seen: {strangers}"


def test_each_namespace_has_a_resolver_of_its_own(lab: Lab, seat: Seat) -> None:
    host = lab.hosts[seat.service.host]
    own = host.run(["cat", "/etc/resolv.conf"], namespace=seat.replica.namespace).stdout
    hosts_file = host.run(["cat", "/etc/resolv.conf"]).stdout
    line = f"nameserver {seat.tier.gateway.ip}"
    where = f"{host.name}/{seat.replica.namespace}"
    assert line in own.splitlines(), f"{where}: expected in /etc/resolv.conf: {line}; seen: {own}"
    assert line not in hosts_file.splitlines(), f"{host.name}: expected: its own file has no {line}; seen: {hosts_file}"
