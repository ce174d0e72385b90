"""Which lab the suite runs on, when there are none, one or two of a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from acceptance import chosen
from underlay.errors import Exit, Problem
from underlay.hosts.vagrant import labs as vagrant
from underlay.topology import load_plan

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Host:
    """As much of a host as is asked for."""

    name: str
    up: bool

    def running(self) -> bool:
        return self.up


class Lab:
    """As much of a lab as is asked for."""

    def __init__(self, *, up: bool = True) -> None:
        self.plan = load_plan(ROOT / "topology.yaml")
        self.hosts = {"host1": Host("host1", up=True), "host2": Host("host2", up=up)}


class Config:
    """pytest's options and the place they are kept."""

    def __init__(self, hosts: str) -> None:
        self.rootpath = ROOT
        self.stash = pytest.Stash()
        self._options = {"--hosts": hosts, "--lab": "underlay"}

        self.cleanups: list[Callable[[], None]] = []

    def getoption(self, name: str) -> str:
        return self._options[name]

    def add_cleanup(self, cleanup: Callable[[], None]) -> None:
        self.cleanups.append(cleanup)


def choose(monkeypatch: pytest.MonkeyPatch, hosts: str = "auto", **labs: Lab | None) -> str:
    """Return the kind that is chosen, or what is said."""
    monkeypatch.setattr(chosen, "FINDERS", {kind: lambda _, lab=lab: lab for kind, lab in labs.items()})
    try:
        return chosen.chosen(Config(hosts)).kind  # type: ignore[arg-type]
    except pytest.exit.Exception as end:
        return f"exit {end.returncode}: {end.msg}"


def test_the_one_that_is_up_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(monkeypatch, namespace=Lab(), vagrant=None) == "namespace"
    assert choose(monkeypatch, namespace=None, vagrant=Lab()) == "vagrant"
    assert choose(monkeypatch, namespace=Lab(up=False), vagrant=Lab()) == "vagrant"


def test_with_two_that_are_up_the_user_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    said = choose(monkeypatch, namespace=Lab(), vagrant=Lab())
    assert said.startswith(f"exit {int(Exit.NOT_READY)}: ")
    assert "up on hosts of more than one kind" in said
    assert "choose with --hosts: namespace, vagrant" in said
    assert choose(monkeypatch, "vagrant", namespace=Lab(), vagrant=Lab()) == "vagrant"
    assert choose(monkeypatch, "namespace", namespace=Lab(), vagrant=Lab()) == "namespace"


def test_hosts_without_power_and_no_lab_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "host2 not running" in choose(monkeypatch, namespace=Lab(up=False), vagrant=None)
    assert "no lab underlay is up" in choose(monkeypatch, namespace=None, vagrant=None)


def test_why_there_are_no_virtual_machines_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vagrant, "why_not", lambda name: Problem(name, "libvirt has gone", "start it"))
    assert "libvirt has gone" in choose(monkeypatch, "vagrant", namespace=None, vagrant=None)
