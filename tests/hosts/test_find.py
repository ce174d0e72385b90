"""The one finder: of no lab, of one, of two of the same name; and how a command is spelled that means the same lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hosts.recorded import record
from tests.plans import shop
from underlay.errors import NotReady, Problem
from underlay.hosts.base import Lab
from underlay.hosts.find import KINDS, Kind, find, options, spelled
from underlay.topology import Plan, load_plan

ROOT = Path(__file__).parents[2]
NAME = "tests-of-the-finder"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "plan.yaml"
    path.write_text(shop.text((f"lab: {shop.plan().lab}", f"lab: {NAME}")))
    return load_plan(path)


def kind(lab: Lab | None, up: str) -> Kind:
    return Kind(lambda _: lab, lambda name: Problem(name, "libvirt has gone", "start it"), up)


def kinds(namespace: Lab | None, vagrant: Lab | None) -> dict[str, Kind]:
    return {"namespace": kind(namespace, "./lab up"), "vagrant": kind(vagrant, "./lab vagrant up")}


def names(plan: Plan) -> list[str]:
    return [host.name for host in plan.hosts]


def test_the_kinds_are_the_ones_that_there_are() -> None:
    assert list(KINDS) == ["namespace", "vagrant"]


def test_the_one_that_is_there_is_found(plan: Plan, tmp_path: Path) -> None:
    lab = record(tmp_path, plan)
    assert find(NAME, kinds=kinds(lab, None)) is lab
    assert find(NAME, "vagrant", kinds=kinds(None, lab)) is lab
    assert find(NAME, "namespace", kinds=kinds(lab, lab)) is lab


def test_a_lab_left_behind_by_a_machine_that_stopped_does_not_stand_in_the_way(plan: Plan, tmp_path: Path) -> None:
    off, on = record(tmp_path / "1", plan), record(tmp_path / "2", plan, on=names(plan))
    assert find(NAME, kinds=kinds(off, on)) is on
    assert find(NAME, kinds=kinds(on, off)) is on


def test_with_two_that_run_the_user_is_asked(plan: Plan, tmp_path: Path) -> None:
    one, part = record(tmp_path / "1", plan, on=names(plan)), record(tmp_path / "2", plan, on=names(plan)[:1])
    for both in (kinds(one, part), kinds(part, one)):
        with pytest.raises(NotReady, match=r"more than one kind\n.*choose with --hosts: namespace, vagrant"):
            find(NAME, kinds=both)


def test_without_one_the_way_to_it_is_named(plan: Plan) -> None:
    nobody = kinds(None, None)
    with pytest.raises(NotReady, match=r"lab tests-of-the-finder: it is not up\n.*\./lab up, or \./lab vagrant up$"):
        find(NAME, kinds=nobody)
    with pytest.raises(NotReady, match="libvirt has gone"):
        find(NAME, "vagrant", kinds=nobody)


def test_hosts_that_are_off_are_named_where_all_must_be_on(plan: Plan, tmp_path: Path) -> None:
    first, second = names(plan)
    lab = record(tmp_path, plan, on=[first])
    assert find(NAME, kinds=kinds(lab, None)) is lab
    with pytest.raises(NotReady, match=rf"{second} not running\n.*\./lab up$"):
        find(NAME, all_on=True, kinds=kinds(lab, None))
    with pytest.raises(NotReady, match=rf"{second} not running\n.*\./lab vagrant up$"):
        find(NAME, all_on=True, kinds=kinds(None, lab))


@pytest.mark.parametrize(
    ("plan", "hosts", "expected"),
    [
        (None, None, "say ./lab up, or `./lab vagrant up`; not /x/lab up, or collab up"),
        ("/a b.yaml", None,
         "say ./lab --plan '/a b.yaml' up, or `./lab --plan '/a b.yaml' vagrant up`; not /x/lab up, or collab up"),
        (None, "vagrant",
         "say ./lab --hosts vagrant up, or `./lab --hosts vagrant vagrant up`; not /x/lab up, or collab up"),
    ],
)  # fmt: skip
def test_commands_carry_the_options_they_need(plan: str | None, hosts: str | None, expected: str) -> None:
    text = "say ./lab up, or `./lab vagrant up`; not /x/lab up, or collab up"
    path = None if plan is None else Path(plan)
    once = spelled(text, path, hosts)
    assert once == expected
    assert spelled(once, path, hosts) == once, "told twice, it carries them once"
    assert options(path, hosts) == (*(("--plan", plan) if plan else ()), *(("--hosts", hosts) if hosts else ()))
