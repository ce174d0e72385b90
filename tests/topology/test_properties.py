"""Plans at random: a valid one always converts and reads back; a broken one gives InputError and nothing else."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.plans import shop
from tests.topology.strategies import broken, plan_texts
from underlay.errors import InputError, Problem
from underlay.topology import Plan, across, dns_names, flow_pairs, load_plan, parse_plan, plan_as_json, render_plan
from underlay.topology.derive import LONGEST_INTERFACE
from underlay.topology.tunnel import BRIDGE, DEVICE

SHOP = shop.text()


def modest(examples: int) -> settings:
    """A run of that many examples; a loaded machine must not fail it."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@modest(40)
@given(plan_texts())
def test_valid_plan_converts_and_reads_back(text: str) -> None:
    plan = parse_plan(text, "generated")
    assert parse_plan(render_plan(plan), "rendered") == plan
    assert render_plan(parse_plan(render_plan(plan), "rendered")) == render_plan(plan)
    assert_is_consistent(plan)


def assert_is_consistent(plan: Plan) -> None:
    replicas = [replica for _, replica in plan.replicas()]
    interfaces = [replica.link for replica in replicas] + [tier.bridge for tier in plan.tiers]
    assert all(0 < len(name.encode()) <= LONGEST_INTERFACE for name in interfaces)
    assert len(set(interfaces)) == len(interfaces)
    assert len({replica.namespace for replica in replicas}) == len(replicas)
    addresses = [replica.ip for replica in replicas] + [tier.gateway.ip for tier in plan.tiers]
    addresses += [host.address.ip for host in plan.hosts] + [plan.underlay.gateway.ip]
    assert len(set(addresses)) == len(addresses)
    for service, replica in plan.replicas():
        tier = plan.tier(service.tier)
        assert replica.address.network == tier.subnet == tier.gateway.network
        assert replica.ip not in {tier.subnet.network_address, tier.subnet.broadcast_address}
        assert tier.host == service.host
    for host in plan.hosts:
        assert host.address.network == plan.underlay.subnet
    pairs = sum(
        len(plan.service(flow.source).replicas) * len(plan.service(flow.target).replicas) for flow in plan.flows
    )
    assert len(list(flow_pairs(plan))) == pairs
    assert len(dns_names(plan)) == len(plan.services) + len(replicas)
    assert json.loads(json.dumps(plan_as_json(plan), allow_nan=False)) == plan_as_json(plan)
    assert_is_stretched(plan, set(interfaces))


def assert_is_stretched(plan: Plan, interfaces: set[str]) -> None:
    """What the tunnel adds stands beside all else, in its own subnet, and holds the flows that it is there for."""
    stretched = across(plan)
    replicas = [replica for _, replica in stretched.plan.replicas()]
    names = [replica.link for replica in replicas]
    assert all(len(name.encode()) <= LONGEST_INTERFACE for name in names)
    assert len(set(names)) == len(names)
    assert not interfaces & {*names, BRIDGE, DEVICE}
    assert not {replica.namespace for replica in replicas} & {replica.namespace for _, replica in plan.replicas()}
    addresses = [*(replica.address for replica in replicas), *stretched.bridges.values()]
    assert len(set(addresses)) == len(addresses)
    for address in addresses:
        assert address.network == plan.tunnel.subnet
        assert address.ip not in {plan.tunnel.subnet.network_address, plan.tunnel.subnet.broadcast_address}
    assert {service.host for service in stretched.plan.services} == set(stretched.bridges)
    assert set(stretched.plan.flows) <= set(plan.flows)
    assert {flow.source for flow in stretched.plan.flows} | {flow.target for flow in stretched.plan.flows} == {
        service.name for service in stretched.plan.services
    }


def assert_plan_or_input_error(text: str) -> None:
    plan: Plan | None = None
    said: tuple[Problem, ...] = ()
    try:
        plan = parse_plan(text, "broken")
    except InputError as error:
        said = error.problems
    assert all(str(problem).replace("\n", "").isprintable() and problem.what and problem.hint for problem in said)
    if plan is not None:
        assert parse_plan(render_plan(plan), "rendered") == plan
        assert_is_consistent(plan)


@modest(150)
@given(broken(SHOP))
@example('lab: "\\UFFFFFFFF"')
@example("%YAML 1." + "9" * 5000 + "\n---\nlab: x")
@example("lab: " + "9" * 5000)
@example("- " * 5000)
@example("{" * 5000)
@example("lab: &a [*a]\nhosts: *a")
@example("\ud800")
@example("a: !<tag:yaml.org,2002:int> [1]\nlab: !!int x\ndomain: !!bool maybe\n<<: {<<: *x}")
def test_broken_text_of_the_tests_plan(text: str) -> None:
    assert_plan_or_input_error(text)


@modest(40)
@given(plan_texts().flatmap(broken))
def test_broken_text_of_any_plan(text: str) -> None:
    assert_plan_or_input_error(text)


@modest(100)
@given(st.text(alphabet=st.characters(), max_size=200) | st.text(alphabet="ab:-[]{}&*!|>'\"%#,? \n\t~<=", max_size=60))
def test_text_that_was_never_a_plan(text: str) -> None:
    assert_plan_or_input_error(text)


def read_by(text: str, *, quick: bool) -> Plan | str:
    """The plan, or what is said of it; with or without PyYAML's parser in C."""
    with pytest.MonkeyPatch.context() as patch:
        if not quick:
            patch.setattr(yaml, "__with_libyaml__", False)
        try:
            return parse_plan(text, "broken")
        except InputError as error:
            return str(error)


@modest(80)
@given(plan_texts() | broken(shop.text()) | plan_texts().flatmap(broken))
@example(shop.text())
@example("{" * 100_000)
@example("- " * 100_000)
@example("\n".join(" " * depth + "a:" for depth in range(500)))
def test_both_parsers_read_the_same(text: str) -> None:
    assert read_by(text, quick=True) == read_by(text, quick=False)


@modest(40)
@given(plan_texts())
def test_valid_plan_is_read_by_the_parser_in_c(text: str) -> None:
    if not yaml.__with_libyaml__:
        pytest.skip("this PyYAML was built without its parser in C")
    rendered = render_plan(parse_plan(text, "generated"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(yaml, "compose")
        assert render_plan(parse_plan(rendered, "rendered")) == rendered


@modest(60)
@given(st.binary(max_size=100), st.integers(0, len(SHOP)), st.integers(0, 40))
def test_bytes(junk: bytes, at: int, cut: int) -> None:
    content = SHOP.encode()
    with TemporaryDirectory() as directory:
        path = Path(directory) / "plan.yaml"
        path.write_bytes(content[:at] + junk + content[at + cut :])
        with suppress(InputError):
            load_plan(path)
