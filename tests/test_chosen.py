"""Which lab the suite runs on: what options and variables ask for, and what is said when there is no such lab."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from acceptance import chosen
from tests.hosts.recorded import record
from tests.plans import shop
from underlay.errors import Exit
from underlay.hosts.find import HOSTS_VARIABLE, LAB_VARIABLE, PLAN_VARIABLE
from underlay.hosts.namespace.state import DIRECTORY_VARIABLE
from underlay.topology import load_plan

ROOT = Path(__file__).parents[1]
#: Labs of these names are on no machine.
DEFAULT, OTHER = "tests-of-the-suite", "tests-of-its-option"


class Config:
    """pytest's options and the place they are kept."""

    def __init__(self, root: Path, lab: str | None, hosts: str | None) -> None:
        self.rootpath = root
        self.stash = pytest.Stash()
        self._options = {"--hosts": hosts, "--lab": lab}
        self.cleanups: list[Callable[[], None]] = []

    def getoption(self, name: str) -> str | None:
        return self._options[name]

    def add_cleanup(self, cleanup: Callable[[], None]) -> None:
        self.cleanups.append(cleanup)


@pytest.fixture(autouse=True)
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two labs that are up, by two plans: that of the repository, and another one."""
    for variable in (HOSTS_VARIABLE, LAB_VARIABLE, PLAN_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "state"))
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path / "dot"))
    for name, file in ((DEFAULT, "topology.yaml"), (OTHER, "other.yaml")):
        text = shop.text((f"lab: {shop.plan().lab}", f"lab: {name}"))
        (tmp_path / file).write_text(text)
        plan = load_plan(tmp_path / file)
        record(tmp_path / "state", plan, on=[host.name for host in plan.hosts])


def choose(place: Path, lab: str | None = None, hosts: str | None = None) -> str:
    """Return the lab and its kind, or what is said."""
    try:
        found = chosen.chosen(Config(place, lab, hosts))  # type: ignore[arg-type]
    except pytest.exit.Exception as end:
        return f"exit {end.returncode}: {end.msg}"
    return f"{found.plan.lab} on {found.kind}"


def edit(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_the_plan_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(tmp_path) == f"{DEFAULT} on namespace"
    monkeypatch.setenv(PLAN_VARIABLE, str(tmp_path / "other.yaml"))
    assert choose(tmp_path) == f"{OTHER} on namespace"
    monkeypatch.setenv(PLAN_VARIABLE, os.path.relpath(tmp_path / "other.yaml"))
    assert choose(tmp_path) == f"{OTHER} on namespace"


def test_so_does_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(tmp_path, OTHER) == f"{OTHER} on namespace"
    monkeypatch.setenv(LAB_VARIABLE, OTHER)
    assert choose(tmp_path) == f"{OTHER} on namespace"
    assert choose(tmp_path, DEFAULT) == f"{DEFAULT} on namespace"


def test_a_plan_and_the_name_of_another_lab_contradict_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLAN_VARIABLE, str(tmp_path / "other.yaml"))
    said = choose(tmp_path, DEFAULT)
    assert said.startswith(f"exit {int(Exit.NOT_READY)}: ")
    assert f"this plan is of lab {OTHER}, and lab {DEFAULT} was asked for" in said
    assert choose(tmp_path, OTHER) == f"{OTHER} on namespace"


@pytest.mark.parametrize("how", ["option", "variable"])
def test_the_kind_of_hosts_is_honoured(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(kind: str) -> str:
        if how == "option":
            return choose(tmp_path, hosts=kind)
        monkeypatch.setenv(HOSTS_VARIABLE, kind)
        return choose(tmp_path)

    for kind in ("auto", "namespace"):
        assert ask(kind) == f"{DEFAULT} on namespace"
    assert "no virtual machine was made from this checkout" in ask("vagrant")
    assert "./lab --hosts vagrant vagrant up" in ask("vagrant")


def test_a_kind_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOSTS_VARIABLE, "docker")
    assert "there is no kind of hosts docker" in choose(tmp_path)


def test_a_lab_that_is_up_with_another_plan_is_not_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.yaml"
    monkeypatch.setenv(PLAN_VARIABLE, str(other))
    edit(other, "hosts:\n", "# A comment changes nothing\nhosts:\n")
    assert choose(tmp_path) == f"{OTHER} on namespace"
    edit(other, "port: 8080", "port: 8081")
    said = choose(tmp_path)
    assert said.startswith(f"exit {int(Exit.NOT_READY)}: {other}: ")
    assert "(publish)" in said
    assert f"./lab --plan {other} converge phase1" in said
    edit(other, "192.168.56.11", "192.168.56.13")
    assert f"./lab --plan {other} up" in choose(tmp_path)
    edit(tmp_path / "topology.yaml", "port: 8080", "port: 8081")
    monkeypatch.delenv(PLAN_VARIABLE)
    assert choose(tmp_path).endswith("./lab converge phase1")


def test_hosts_without_power_and_no_lab_are_said(tmp_path: Path) -> None:
    edit(tmp_path / "topology.yaml", f"lab: {DEFAULT}", "lab: tests-of-nobody")
    assert "lab tests-of-nobody: it is not up" in choose(tmp_path)
    record(tmp_path / "state", load_plan(tmp_path / "topology.yaml"), on=["host1"])
    assert "host2 not running" in choose(tmp_path)
