"""Of the host, a namespace reaches DNS alone: at its own tier's gateway."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address

import pytest

from acceptance.suite.stage import Seat, Stage
from acceptance.traffic import DNS_PORT, NO_ERROR, Attempt, Outcome, Prober, dns_answer, dns_question
from underlay.topology import Plan

#: What came of questions: by protocol, namespace, and the address that was asked.
Asked = Mapping[tuple[str, str, IPv4Address], Outcome]
_PROTOCOLS = ("udp", "tcp")


def _addresses(plan: Plan, host: str) -> list[IPv4Address]:
    return [plan.host(host).address.ip, *(tier.gateway.ip for tier in plan.tiers_on(host))]


@pytest.fixture(scope="module")
def asked(stage: Stage, probers: Mapping[str, Prober]) -> Asked:
    """Ask for a name at each of a host's addresses, from each of its namespaces, in one run a host."""
    found: dict[tuple[str, str, IPv4Address], Outcome] = {}
    plan = stage.plan
    question = dns_question(next(f"{service.name}.{plan.domain}" for service in plan.services))
    framed = f"{len(question) // 2:04x}{question}"  # RFC 1035, section 4.2.2
    for host, here in stage.by_host().items():
        attempts: dict[tuple[str, str, IPv4Address], Attempt] = {}
        for seat in here:
            for address in _addresses(plan, host):
                attempts["udp", seat.name, address] = seat.attempt("udp", address, DNS_PORT, question)
                attempts["tcp", seat.name, address] = seat.attempt("tcp", address, DNS_PORT, framed, reply=True)
        found |= zip(attempts, probers[host].attempt(list(attempts.values())), strict=True)
    return found


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_dns_of_the_host_is_reachable(asked: Asked, seat: Seat, protocol: str) -> None:
    outcome = asked[protocol, seat.name, seat.tier.gateway.ip]
    outcome.assert_connected()
    code, records = dns_answer(outcome.reply[4:] if protocol == "tcp" else outcome.reply)
    assert (code, records > 0) == (NO_ERROR, True), f"expected: an address; seen: code {code}, {records} in {outcome}"


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_dns_is_reachable_at_the_own_gateway_alone(asked: Asked, seat: Seat, protocol: str, stage: Stage) -> None:
    """The one server answers at the gateway of each tier; those of other tiers are not this tier's."""
    for address in set(_addresses(stage.plan, seat.host)) - {seat.tier.gateway.ip}:
        stage.assert_denied(asked[protocol, seat.name, address])
