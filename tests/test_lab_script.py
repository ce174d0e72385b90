"""`./lab`, the shell script before the command."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.plans import shop
from underlay.process import Completed, run

ROOT = Path(__file__).parents[1]
LAB = ROOT / "lab"
_PINS = ROOT / "requirements" / "lab.txt"
_STAMP = ROOT / ".venv" / "pins"


def installed(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


@pytest.fixture
def environment() -> None:
    """The environment that the script makes; this test must not make it, which takes half a minute and a network."""
    if not (_STAMP.is_file() and filecmp.cmp(_PINS, _STAMP, shallow=False)):
        pytest.skip("there is no environment for these pins yet: ./lab plan show makes it")


def lab(*words: str, by: tuple[str, ...] = (), cwd: Path = ROOT) -> Completed:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return run((*by, str(LAB), *words), timeout=30, check=False, cwd=cwd, env=environment)


def test_it_can_be_run() -> None:
    assert os.access(LAB, os.X_OK)
    assert LAB.read_text().startswith("#!/bin/sh\n")


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_shells_read_it(shell: str) -> None:
    done = run((installed(shell), "-n", str(LAB)), timeout=10)
    assert done.stderr == ""


def test_shellcheck_finds_nothing() -> None:
    done = run((installed("shellcheck"), "--shell=sh", str(LAB)), timeout=30, check=False)
    assert done.stdout == ""


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("shell", ["dash", None])
def test_it_runs_from_anywhere(shell: str | None, tmp_path: Path) -> None:
    done = lab(
        "--plan", str(shop.PATH), "plan", "show", "--json", by=(installed(shell),) if shell else (), cwd=tmp_path
    )
    assert done.stderr == ""
    assert json.loads(done.stdout)["hosts"][0]["name"] == "host1"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("environment")
def test_it_runs_by_a_link_to_it(tmp_path: Path) -> None:
    """To its directory or to itself; what is beside the link is nothing to it."""
    (tmp_path / "checkout").symlink_to(ROOT)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "lab").symlink_to(LAB)
    (tmp_path / "bin" / ".venv").mkdir()
    for name in ("checkout", "bin"):
        done = run((str(tmp_path / name / "lab"), "--plan", str(shop.PATH), "plan", "show", "--json"), timeout=30)
        assert json.loads(done.stdout)["lab"] == shop.plan().lab
    assert (tmp_path / "bin" / ".venv").is_dir()


@pytest.mark.parametrize(
    ("pins", "said"), [(False, "this is no whole checkout of Underlay"), (True, "is no Python environment")]
)
def test_a_directory_that_it_did_not_make_is_left_alone(pins: bool, said: str, tmp_path: Path) -> None:
    shutil.copy(LAB, tmp_path / "lab")
    precious = tmp_path / ".venv" / "precious"
    precious.parent.mkdir()
    precious.write_text("mine")
    if pins:
        (tmp_path / "requirements").mkdir()
        (tmp_path / "requirements" / "lab.txt").write_text("click\n")
    done = run((str(tmp_path / "lab"), "--version"), timeout=30, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert said in done.stderr
    assert precious.read_text() == "mine"


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("verb", ["--help", "plan", "check"])
def test_nothing_is_taken_from_where_the_caller_stands(verb: str, tmp_path: Path) -> None:
    """Neither modules nor programs, and nothing by the caller's settings of Python: `check` runs as root."""
    note = tmp_path / "note"
    for name in ("click", "underlay", "yaml", "json", "encodings", "sitecustomize", "venv", "pip", "tox"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"open({str(note)!r}, 'a').write({name!r} + ' ')")
    for name in ("python3", "dirname", "id", "cmp", "env", "sed", "sudo"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} >>'{note}'\n")
        (tmp_path / name).chmod(0o755)
    plan = tmp_path / "plan.yaml"
    plan.write_text(shop.text())
    words = {"--help": ("--help",), "plan": ("plan", "show"), "check": ("--plan", str(plan), "check", "phase1")}[verb]
    environment = {
        **os.environ,
        "PATH": f".::{os.environ['PATH']}:",
        "PYTHONPATH": f"{tmp_path}:",
        "PYTHONSTARTUP": str(tmp_path / "click/__init__.py"),
        "PYTHONHOME": str(tmp_path),
    }
    done = run((str(LAB), *words), timeout=30, check=False, cwd=tmp_path, env=environment)
    assert not note.exists(), note.read_text()
    assert done.returncode == (3 if verb == "check" else 0), done.stderr


@pytest.mark.usefixtures("environment")
def test_words_and_exit_codes_pass_through(tmp_path: Path) -> None:
    plan = tmp_path / "a plan.yaml"
    plan.write_text("lab: Under Lay\n")
    done = lab("--plan", str(plan), "plan", "show")
    assert done.returncode == 2
    assert f"{plan}:1: " in done.stderr
    assert lab("plan", "frobnicate").returncode == 2
    assert lab("--help").returncode == 0
