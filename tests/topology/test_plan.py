"""A plan, what it comes to, and single rules of reading and deriving.

``plan.json`` beside this file is written anew with UNDERLAY_GOLDEN=write in the environment; see test_bad.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from tests.plans import shop
from tests.topology.golden import compare
from underlay.errors import InputError
from underlay.topology import (
    Plan,
    Program,
    Timeouts,
    dns_names,
    flow_pairs,
    load_plan,
    parse_plan,
    plan_as_json,
    render_plan,
)
from underlay.topology.derive import interface_name
from underlay.topology.load import MOST_BYTES
from underlay.topology.notes import MOST_PROBLEMS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return shop.plan()


def test_plan_as_json(plan: Plan) -> None:
    compare(Path(__file__).parent / "plan.json", json.dumps(plan_as_json(plan), indent=2) + "\n")


def test_plan_values(plan: Plan) -> None:
    assert plan.host("host2").address == IPv4Interface("192.168.56.12/24")
    assert plan.underlay.gateway == IPv4Interface("192.168.56.1/24")
    assert plan.tier("backend").gateway == IPv4Interface("10.77.2.1/24")
    assert plan.tier("data").bridge == "br-data"
    assert plan.tier("data").host == "host1"
    second = plan.service("gateway").replicas[1]
    assert (second.name, second.link, second.ip) == ("gateway-2", "v-gateway-2", IPv4Address("10.77.1.21"))
    assert plan.service("gateway").egress
    assert not plan.service("edge").egress
    assert plan.timeouts == Timeouts(connect=2, command=30, ready=30, cache=300)


def test_flow_pairs(plan: Plan) -> None:
    pairs = [(source.name, service.port, target.name) for source, service, target in flow_pairs(plan)]
    assert pairs[:3] == [("edge-1", 3000, "gateway-1"), ("edge-1", 3000, "gateway-2"), ("gateway-1", 5000, "product-1")]
    assert len(pairs) == 2 + 4 + 2 + 2 + 2 + 1


def test_dns_names(plan: Plan) -> None:
    names = dns_names(plan)
    assert names["product.shop.internal"] == (IPv4Address("10.77.2.30"), IPv4Address("10.77.2.31"))
    assert names["product-2.shop.internal"] == (IPv4Address("10.77.2.31"),)


def test_render_reads_back_equal(plan: Plan) -> None:
    assert parse_plan(render_plan(plan), "rendered") == plan


def test_render_quotes_words_that_yaml_takes_for_something_else(plan: Plan) -> None:
    text = shop.text(("  redis: {", '  "on": {'), ("product -> redis", "product -> on"))
    odd = parse_plan(text, "text")
    assert odd.service("on").program is Program.REDIS
    assert parse_plan(render_plan(odd), "rendered") == odd
    assert odd != plan


def test_defaults() -> None:
    text = shop.text(
        ("host2: {address: 192.168.56.12, cpus: 2, memory: 1024}", "host2: {address: 192.168.56.12}"),
        ("  mtu: 1500\n", ""),
    )
    plan = parse_plan(text.split("publish:")[0] + text[text.index("tunnel:") :], "text")
    assert (plan.host("host2").cpus, plan.host("host2").memory, plan.underlay.mtu) == (2, 1024, 1500)
    assert plan.published == ()
    assert len(plan.service("edge").replicas) == 1


@pytest.mark.parametrize("empty", ["publish:\n", "publish: []\n", "publish: ~\n", ""])
def test_publish_may_be_empty(empty: str) -> None:
    text = shop.text(("publish:\n  - {host: host1, port: 8080, service: edge}\n", empty))
    plan = parse_plan(text, "text")
    assert plan.published == ()
    assert parse_plan(render_plan(plan), "rendered") == plan


def test_flows_may_be_empty() -> None:
    text = shop.text()
    alone = "services:\n  data: {tier: data, host: host1, program: redis, port: 6379}\nflows:\n"
    plan = parse_plan(text.split("services:")[0] + alone + text[text.index("tunnel:") :], "text")
    assert plan.flows == ()
    assert plan.tier("frontend").host is None
    assert parse_plan(render_plan(plan), "rendered") == plan


def test_services_without_first_take_the_next_free_numbers() -> None:
    text = shop.text((", first: 10", ""), (", first: 50", ""), (", first: 60", ""), (", first: 40", ""))
    plan = parse_plan(text, "text")
    first = {service.name: str(service.replicas[0].ip) for service in plan.services}
    assert first["edge"] == "10.77.1.10"
    assert first["redis"] == "10.77.3.10"
    assert first["postgres"] == "10.77.3.11"
    assert first["order"] == "10.77.2.32"  # after product's two from 30


def test_services_without_first_leave_room_for_those_that_say_it() -> None:
    text = shop.text((", first: 10", ", replicas: 3"), (", first: 20", ", first: 11"))
    plan = parse_plan(text, "text")
    assert [str(replica.ip) for replica in plan.service("edge").replicas] == ["10.77.1.13", "10.77.1.14", "10.77.1.15"]


def test_aliases_and_merge_keys() -> None:
    text = shop.text(
        ("  host1: {address: 192.168.56.11, cpus: 2, memory: 2048}", "  host1: &big {address: 192.168.56.11, cpus: 8}"),
        ("  host2: {address: 192.168.56.12, cpus: 2, memory: 1024}", "  host2: {<<: *big, address: 192.168.56.12}"),
        ("connect: 2, command: 30, ready: 30", "connect: 2, command: &half 30, ready: *half"),
    )
    plan = parse_plan(text, "text")
    assert plan.host("host2").cpus == 8
    assert plan.timeouts.ready == 30


def test_merge_of_a_mapping_into_itself_ends() -> None:
    text = shop.text(("host2: {address", "host2: &me {<<: [*me, *me], address"))
    assert parse_plan(text, "text") == shop.plan()


def test_underlay_may_be_any_private_range() -> None:
    text = shop.text(
        ("subnet: 192.168.56.0/24", "subnet: 172.20.0.0/16"),
        ("gateway: 192.168.56.1", "gateway: 172.20.0.1"),
        ("{address: 192.168.56.11", "{address: 172.20.0.11"),
        ("{address: 192.168.56.12", "{address: 172.20.255.12"),
    )
    assert parse_plan(text, "text").underlay.gateway == IPv4Interface("172.20.0.1/16")


def test_long_interface_names_are_shortened_and_stay_apart() -> None:
    assert interface_name("v-gateway-1") == "v-gateway-1"
    assert interface_name("a" * 15) == "a" * 15
    assert interface_name("v-recommendations-1") == "v-recomm-918cb6"
    assert interface_name("v-recommendations-2") != interface_name("v-recommendations-1")


def test_crlf_and_byte_order_mark(tmp_path: Path, plan: Plan) -> None:
    path = tmp_path / "plan.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + shop.PATH.read_bytes().replace(b"\n", b"\r\n"))
    assert load_plan(path) == plan


def _missing(path: Path) -> None:
    assert not path.exists()


def _latin(path: Path) -> None:
    path.write_bytes(b"lab: underlay\ndomain: caf\xe9\n")


def _long(path: Path) -> None:
    path.write_bytes(b"# plan\n" * MOST_BYTES)


def _loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "line", "what", "hint"),
    [
        (_missing, "", "there is no such file", "give the path of a plan"),
        (Path.mkdir, "", "this is a directory", "give the path of the plan itself"),
        (_latin, ":2", "byte 0xe9 is no UTF-8", "save the file as UTF-8"),
        (_long, "", f"this is longer than {MOST_BYTES} bytes", "is this the right file?"),
        (_loop, "", "the plan cannot be read: Too many levels of symbolic links", "a file that you may read"),
    ],
)
def test_file_that_is_no_plan(tmp_path: Path, make: Callable[[Path], None], line: str, what: str, hint: str) -> None:
    path = tmp_path / "plan.yaml"
    make(path)
    with pytest.raises(InputError) as caught:
        load_plan(path)
    (problem,) = caught.value.problems
    assert problem.where == f"{path}{line}"
    assert what in problem.what
    assert hint in problem.hint


def test_path_with_a_nul_character() -> None:
    with pytest.raises(InputError, match="the plan cannot be read"):
        load_plan(Path("plan\0.yaml"))


def test_long_text_is_refused_before_it_is_read() -> None:
    with pytest.raises(InputError, match="this is longer than"):
        parse_plan("[" * (MOST_BYTES + 1), "text")


def test_problems_end_at_some_number() -> None:
    text = shop.text(("  - edge -> gateway\n", "  - edge > gateway\n" * (MOST_PROBLEMS + 50)))
    with pytest.raises(InputError) as caught:
        parse_plan(text, "text")
    assert len(caught.value.problems) == MOST_PROBLEMS + 1
    assert "the rest is not shown" in caught.value.problems[-1].what


def test_problems_stand_in_the_order_of_lines() -> None:
    text = shop.text(("lab: of-the-tests", "lab: Under"), ("vni: 100", "vni: 0"), ("port: 3000", "port: 0"))
    with pytest.raises(InputError) as caught:
        parse_plan(text, "text")
    lines = [int(problem.where.removeprefix("text:")) for problem in caught.value.problems]
    assert len(lines) == 3
    assert lines == sorted(lines)


def test_what_a_terminal_would_act_on_is_not_shown() -> None:
    with pytest.raises(InputError) as caught:
        parse_plan(shop.text(("lab: of-the-tests", r'lab: "\e[2J\ud800"')), "text")
    assert r"\x1b[2J\ud800" in str(caught.value)


def test_import_is_light() -> None:
    heavy = "pyroute2 testinfra flask jinja2 asyncio subprocess hypothesis"
    code = f"import sys, underlay.topology; print([name for name in {heavy.split()} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"
