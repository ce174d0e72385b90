"""Verbs that need no lab, and what the others say when there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.apart import Places
from tests.plans import shop
from underlay.cli.main import main
from underlay.topology import load_plan, plan_as_json

ROOT = Path(__file__).parents[2]
#: The lab of the default plan, and that of another one.
NOBODY = shop.plan().lab
OTHER = f"{NOBODY}-too"


@pytest.fixture
def state(apart: Places) -> Path:
    """Where this test's labs are recorded: there are none."""
    return apart.state


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(shop.text((f"lab: {NOBODY}", f"lab: {OTHER}")))
    return path


@pytest.fixture
def broken(tmp_path: Path, default: Path) -> Path:
    """A plan with two mistakes. The default one is as bad: `up` must not begin with either."""
    path = tmp_path / "broken.yaml"
    path.write_text(shop.text((f"lab: {NOBODY}", "lab: Under Lay"), ("port: 3000", "port: 0")))
    default.write_text(path.read_text())
    return path


def test_plan_as_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["plan", "show"]) == 0
    said = capsys.readouterr().out
    words = set(said.split())
    plan = shop.plan()
    assert {"host1", "192.168.56.11", "br-backend", "10.77.2.0/24", "gateway-2", "host1:8080"} <= words
    assert {f"{replica.ip}:{service.port}" for service, replica in plan.replicas()} <= words, "no address is cut short"
    assert said.count(" yes") == len(plan.flows)


def test_plan_as_json(default: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == plan_as_json(load_plan(default))


@pytest.mark.parametrize("how", ["option", "environment"])
def test_another_plan(
    how: str, plan: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "environment":
        monkeypatch.setenv("UNDERLAY_PLAN", str(plan))
    assert main([*(["--plan", str(plan)] if how == "option" else []), "plan", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lab"] == OTHER


@pytest.mark.parametrize("verb", ["plan show", "status", "up", "converge phase1", "shell host1", "test"])
def test_broken_plan_is_shown_with_all_its_mistakes(
    verb: str, broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--plan", str(broken), *verb.split()]) == 2
    said = capsys.readouterr()
    assert said.err.count("error: ") == 2
    assert f"error: {broken}:3: " in said.err
    assert said.err.count("    hint: ") == 2
    assert "Traceback" not in said.err
    assert said.out == ""


def test_plan_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan", str(tmp_path / "nothing.yaml"), "plan", "show"]) == 2
    assert "there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "verb",
    ["status", "status --json", "exec host1 -- true", "shell host1", "logs host1", "check phase1", "converge phase1",
     "explain phase1 --host host1", "remove phase1"],
)  # fmt: skip
def test_without_a_lab_the_way_to_one_is_named(verb: str, plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan", str(plan), *verb.split()]) == 3
    said = capsys.readouterr()
    assert f"error: lab {OTHER}: it is not up\n" in said.err
    assert f"./lab --plan {plan} up" in said.err
    assert said.out == ""


def test_down_of_nothing(plan: Path, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, name in ((["--plan", str(plan), "down"], OTHER), (["down"], NOBODY), (["down", OTHER], OTHER)):
        assert main(words) == 0
        assert f"lab {name}: nothing to do" in capsys.readouterr().out
    assert not state.exists(), "what does nothing leaves nothing"


def test_down_of_a_lab_that_can_have_no_such_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down", "../etc"]) == 2
    assert "no name of a lab" in capsys.readouterr().err


def test_down_with_a_broken_plan_and_no_lab(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan", str(broken), "down"]) == 2
    said = capsys.readouterr().err
    assert f"{broken}:3: " in said
    assert "there is no lab on this machine" in said
    assert f"./lab --plan {broken} down NAME" in said


def test_down_with_a_broken_plan_and_several_labs(
    broken: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        (state / "labs" / name).mkdir(parents=True)
    assert main(["--plan", str(broken), "down"]) == 2
    assert "labs on this machine: one, two" in capsys.readouterr().err


def test_down_of_a_named_lab_needs_no_plan(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan", str(broken), "down", OTHER]) == 0
    assert f"lab {OTHER}: nothing to do" in capsys.readouterr().out


def test_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "underlay", "--plan", str(shop.PATH), "plan", "show", "--json"],
            cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=30,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 0
