"""The options before the verb: every verb honours them or refuses, and what is printed carries them."""

from __future__ import annotations

import configparser
import json
import os
import sys
from pathlib import Path

import pytest

from tests.hosts.recorded import record
from tests.plans import shop
from underlay.cli import context, phase
from underlay.cli.main import main
from underlay.errors import Exit
from underlay.hosts.find import HOSTS_VARIABLE, LAB_VARIABLE, PLAN_VARIABLE
from underlay.hosts.namespace.state import DIRECTORY_VARIABLE
from underlay.phases import PHASES
from underlay.process import Completed, run
from underlay.topology import load_plan

ROOT = Path(__file__).parents[2]
#: Labs of these names are on no machine.
DEFAULT, OTHER = "tests-of-the-default", "tests-of-the-options"
#: What stands in the place of tox, and tells what it was given: tests are not run within a test.
_TOX = """
import json, os, sys
print(json.dumps([sys.argv[1:], {name: value for name, value in os.environ.items() if name.startswith("UNDERLAY_")}]))
"""


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the default plan lies. Its lab and another one, of the plan other.yaml, are on record, with all off."""
    for variable in (HOSTS_VARIABLE, LAB_VARIABLE, PLAN_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "state"))
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path / "dot"))
    monkeypatch.setattr(context, "REPOSITORY", tmp_path)
    for name, file in ((DEFAULT, "topology.yaml"), (OTHER, "other.yaml")):
        text = shop.text((f"lab: {shop.plan().lab}", f"lab: {name}"))
        (tmp_path / file).write_text(text)
        record(tmp_path / "state", load_plan(tmp_path / file))
    return tmp_path


def edit(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        ("--hosts vagrant up", "./lab --hosts vagrant vagrant up"),
        ("--hosts vagrant down", "./lab --hosts vagrant vagrant destroy -f"),
        (f"--hosts vagrant down {DEFAULT}", "./lab --hosts vagrant vagrant destroy -f"),
        ("--hosts namespace vagrant status", "./lab --hosts namespace up"),
        ("--hosts namespace vm summary", "./lab --hosts namespace up"),
    ],
)
@pytest.mark.parametrize("how", ["option", "variable"])
def test_hosts_of_another_kind_are_refused(
    words: str, instead: str, how: str, repository: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    _, kind, *verb = words.split()
    if how == "variable":
        monkeypatch.setenv(HOSTS_VARIABLE, kind)
    assert main(verb if how == "variable" else words.split()) == int(Exit.USAGE)
    said = capsys.readouterr()
    assert f"{kind} hosts were asked for" in said.err
    assert said.err.endswith(f"{instead}\n")
    assert (repository / "state" / "labs" / DEFAULT / "state.json").exists(), "nothing was removed"


@pytest.mark.parametrize(
    "verb",
    ["status", "exec host1 -- true", "shell host1", "logs host1", "check phase1", "converge phase1", "explain phase1",
     "remove phase1"],
)  # fmt: skip
def test_a_lab_is_looked_for_among_hosts_of_the_kind(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--hosts", "vagrant", *verb.split()]) == int(Exit.NOT_READY)
    said = capsys.readouterr().err
    assert "no virtual machine was made from this checkout" in said
    assert "./lab --hosts vagrant vagrant up" in said


def test_every_host_that_is_named_must_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "phase1", "--host", "host1", "--host", "nowhere"]) == int(Exit.USAGE)
    assert "there is no host nowhere; the lab has host1, host2" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_relative_plan_is_the_same_file_everywhere(
    how: str, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    if how == "variable":
        monkeypatch.setenv(PLAN_VARIABLE, "other.yaml")
    assert main([*(["--plan", "other.yaml"] if how == "option" else []), "check", "phase1"]) == int(Exit.NOT_READY)
    assert f"./lab --plan {repository}/other.yaml up" in capsys.readouterr().err


def told(words: list[str], repository: Path, **variables: str) -> tuple[Completed, list[str], dict[str, str]]:
    """Run the command with another program in tox's place; return what that was given."""
    (repository / "tox").mkdir(exist_ok=True)
    (repository / "tox" / "__init__.py").touch()
    (repository / "tox" / "__main__.py").write_text(_TOX)
    path = os.pathsep.join((str(repository), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", **variables}
    command = (sys.executable, "-m", "underlay", *words)
    done = run(command, timeout=60, check=False, cwd=repository, env=environment)
    arguments, seen = json.loads(done.stdout)
    return done, arguments, seen


@pytest.mark.parametrize("how", ["option", "variable"])
def test_the_suite_is_told_which_lab_it_is(how: str, repository: Path) -> None:
    """As one is up: all of its hosts run, for which this process stands."""
    plan = load_plan(repository / "other.yaml")
    (repository / "state" / "labs" / OTHER).rename(repository / "gone")
    record(repository / "state", plan, on=[host.name for host in plan.hosts])
    words = ["--plan", "other.yaml"] if how == "option" else []
    variables = {PLAN_VARIABLE: "other.yaml"} if how == "variable" else {}
    _, arguments, seen = told([*words, "test", "phase1"], repository, **{**variables, LAB_VARIABLE: DEFAULT})
    assert arguments[-1] == "phase1"
    assert seen[PLAN_VARIABLE] == str(repository / "other.yaml")
    assert seen[HOSTS_VARIABLE] == "namespace"
    assert seen[LAB_VARIABLE] == "", "the caller's own would lead to another lab"


def test_the_suite_is_told_the_kind_that_was_asked_for(repository: Path) -> None:
    done, arguments, seen = told(["--hosts", "vagrant", "test", "unit", "phase1"], repository)
    assert arguments[-1] == "unit", "no virtual machine runs"
    assert seen[HOSTS_VARIABLE] == "vagrant"
    assert "not run: phase1: " in done.stderr
    assert done.returncode == int(Exit.NOT_READY)


def test_the_suite_does_not_run_on_a_lab_of_another_plan(repository: Path) -> None:
    edit(repository / "other.yaml", "port: 8080", "port: 8081")
    done, arguments, _ = told(["--plan", "other.yaml", "test", "unit", "phase1"], repository)
    assert arguments[-1] == "unit"
    assert f"./lab --plan {repository}/other.yaml converge phase1" in done.stderr
    assert done.returncode == int(Exit.NOT_READY)


def test_unit_tests_are_not_told() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini")
    lines = [line.strip() for line in parser["testenv:unit"]["set_env"].splitlines()]
    assert {f"{name} =" for name in (PLAN_VARIABLE, HOSTS_VARIABLE, LAB_VARIABLE)} <= set(lines)


def test_status_says_that_the_file_differs(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json"]) == int(Exit.CHECK_FAILED)  # its hosts are off
    said = capsys.readouterr()
    assert json.loads(said.out)["plan_differs"] == []
    assert said.err == ""
    edit(repository / "topology.yaml", "port: 8080", "port: 8081")
    assert main(["status", "--json"]) == int(Exit.CHECK_FAILED)
    said = capsys.readouterr()
    assert json.loads(said.out)["plan_differs"] == ["publish"]
    assert said.err.startswith(f"note: {repository}/topology.yaml: it differs from the plan that is up (publish)")
    assert said.err.endswith(f"./lab converge {PHASES[-1]}\n")
    assert main(["status"]) == int(Exit.CHECK_FAILED)
    assert "host1:8080" in capsys.readouterr().out, "what is shown is what is up"


def test_a_plan_that_moves_hosts_is_refused(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(repository / "other.yaml", "192.168.56.11", "192.168.56.13")
    assert main(["--plan", str(repository / "other.yaml"), "converge", "phase1"]) == int(Exit.NOT_READY)
    said = capsys.readouterr().err
    assert "hosts.host1.address" in said
    assert f"./lab --plan {repository}/other.yaml up" in said


@pytest.mark.parametrize(
    ("verb", "carries"), [("check", True), ("converge", True), ("remove", True), ("explain", False)]
)
def test_what_hosts_advise_means_the_same_lab(
    verb: str, carries: bool, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hint that is pasted without the options takes things away on another lab. A script is what the host wrote."""
    hint = "    hint: if nobody needs it: ./lab exec host1 -- rm /etc/netns/edge-1/resolv.conf\n"
    monkeypatch.setattr(phase, "provision", lambda plan, host, *words: Completed(words, 0, hint, hint, 0.0))
    other = repository / "other.yaml"
    assert main(["--plan", str(other), verb, "phase1", "--host", "host1"]) == int(Exit.GOOD)
    said = capsys.readouterr()
    spelled = hint.replace("./lab exec", f"./lab --plan {other} exec")
    assert said.err == spelled
    assert said.out == (spelled if carries else hint)
