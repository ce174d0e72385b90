"""The registry of phases: what each must say of itself, and that one more takes one file."""

from __future__ import annotations

import fcntl
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import provision
from provision import __main__ as command
from provision.marks import Places
from provision.phases import Registered, definition
from provision.resource import Resource
from tests.plans import shop
from tests.provision.plans import phases, split
from underlay.errors import Exit
from underlay.phases import PHASES

#: A phase that does nothing, and keeps what it remembers below ``top``.
NOTHING = """
from pathlib import Path

from provision.marks import Mark, Places
from provision.phases import Definition
from provision.resource import Phase

MARK = Mark("phase9", 9, Places(*(Path({top!r}, name) for name in ("settings", "state", "run"))))
DEFINITION = Definition(
    mark=MARK,
    ask=lambda plan, host, network: None,
    build=lambda plan, host, facts: Phase(MARK, ()),
    kinds=(),
    claims=lambda plan, host: frozenset(),
)
"""


def every() -> list[Registered]:
    return [definition(name) for name in PHASES]


def concrete() -> Iterator[type[Resource]]:
    """Every class of provisioning that is a resource and can be made."""
    for module in pkgutil.walk_packages(provision.__path__, "provision."):
        if module.name.endswith("__main__"):
            continue
        for _, item in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(item, Resource) and not inspect.isabstract(item) and item.__module__ == module.name:
                yield item


def test_each_phase_is_called_as_it_is_listed() -> None:
    assert [known.mark.phase for known in every()] == list(PHASES)


def test_no_two_phases_share_a_mark() -> None:
    numbers = [known.mark.number for known in every()]
    assert len(set(numbers)) == len(numbers)


def test_every_kind_of_resource_can_be_found_again() -> None:
    """What nobody discovers is never removed."""
    found = {item for known in every() for kind in known.kinds for item in kind.finds}
    assert found == set(concrete())


def test_a_phase_finds_all_that_it_is_made_of() -> None:
    found = {item for kind in definition("phase1").kinds for item in kind.finds}
    made = {
        type(item) for plan in (shop.plan(), split()) for phase in phases(plan).values() for item in phase.resources
    }
    assert made == found, "and looks for nothing else"


def test_removal_goes_from_what_runs_to_the_guard() -> None:
    modules = [kind.discover.__module__.rpartition(".")[2] for kind in definition("phase1").kinds]
    assert modules[0] == "program", "programs before what they stand on"
    assert modules.index("user") > modules.index("postgres"), "a user after what belongs to it"
    assert modules.index("link") < modules.index("namespace"), "one request removes all links of a group"
    assert modules[-1] == "rules", "no packet passes without them"


@pytest.fixture
def ninth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One more phase: a file in the folder of phases, and a name in the list."""
    file = tmp_path / "phase9.py"
    file.write_text(NOTHING.format(top=str(tmp_path)))
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "topology.yaml").write_text(shop.text())
    monkeypatch.setattr(provision, "__path__", [*provision.__path__, str(tmp_path)])
    monkeypatch.setattr(command, "PHASES", (*PHASES, "phase9"))
    monkeypatch.setattr(command, "_PLACES", Places(settings=tmp_path / "settings"))
    monkeypatch.setattr(command, "_LOCK", tmp_path / "lock")
    monkeypatch.setattr(command, "_host_name", lambda: "host1")
    yield file
    sys.modules.pop("provision.phase9", None)


@pytest.mark.usefixtures("ninth")
def test_one_more_phase_takes_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["explain", "phase9"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("#!/bin/sh\n# Made by Underlay, phase9.\n")
    assert command.main(["check", "phase9"]) == 0
    assert "host1: phase9: 0 differences" in capsys.readouterr().out


@pytest.mark.usefixtures("ninth")
def test_a_phase_goes_from_a_host_that_could_not_hold_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever removes it asks for nothing but its mark: an address that is gone must not keep the rest of it there."""
    needy = NOTHING.format(top=str(tmp_path)).replace("lambda plan, host, network: None", "missing")
    refusal = """
from underlay.errors import NotReady, Problem

def missing(plan, host, network):
    raise NotReady(Problem(host, "it lacks something"))
"""
    (tmp_path / "phase9.py").write_text(refusal + needy)
    importlib.invalidate_caches()
    assert command.main(["check", "phase9"]) == 3
    assert command.main(["remove", "phase9"]) == 0
    assert "host1: phase9: 0 removed" in capsys.readouterr().out


@pytest.mark.usefixtures("ninth")
def test_one_run_at_a_time_works_on_a_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "settings" / "topology.yaml"
    plan.write_text(shop.text(("connect: 2, command: 30, ready: 30,", "connect: 0.1, command: 0.1, ready: 0.1,")))
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        assert command.main(["converge", "phase9"]) == int(Exit.NOT_READY)
    assert "process 4711 is at work" in capsys.readouterr().err
    assert not (tmp_path / "state").exists(), "nothing was touched"
    assert command.main(["converge", "phase9"]) == 0


@pytest.mark.parametrize("verb", ["converge", "note"])
def test_what_another_phase_has_is_refused_before_anything_is_touched(
    verb: str, ninth: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ninth.write_text(ninth.read_text().replace("frozenset()", 'frozenset({"TCP port 8080", "link x"})'))
    monkeypatch.setattr(command, "_on", lambda: ["phase1"])
    assert command.main([verb, "phase9"]) == int(Exit.NOT_READY)
    said = capsys.readouterr().err
    assert "phase9 wants TCP port 8080, which is phase1's" in said
    assert "./lab remove phase1" in said
    assert "link x" not in said, "what nobody else has is nobody else's affair"
    assert not (ninth.parent / "state").exists(), "it does not count as on"


def test_claims_of_a_phase_are_its_published_ports_and_names_in_the_kernel() -> None:
    claims = definition("phase1").claims(shop.plan(), "host1")
    assert {"TCP port 8080", "link br-data", "namespace edge-1"} <= claims
    assert definition("phase1").claims(shop.plan(), "host2") == frozenset()
