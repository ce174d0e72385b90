"""``python3 -m provision`` as a person meets it who has mistyped something."""

from __future__ import annotations

import os
import pwd
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from provision.__main__ import main
from provision.marks import Places
from tests.plans import shop
from tests.provision.plans import ROOT
from underlay.process import Completed, run

#: Runs the command in this process, since starting one takes half a second.
Provision: TypeAlias = Callable[..., Completed]


@pytest.fixture
def provision(capsys: pytest.CaptureFixture[str]) -> Provision:
    def call(*words: str) -> Completed:
        try:
            code = main(words)
        except SystemExit as end:
            code = int(str(end.code))
        said = capsys.readouterr()
        return Completed(words, code, said.out, said.err, 0)

    return call


def test_program_is_there() -> None:
    done = run((sys.executable, "-m", "provision", "conjure"), timeout=30, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python3 -m provision")


@pytest.mark.parametrize(
    "words",
    [(), ("conjure",), ("converge",), ("converge", "phase0"), ("check", "phase1", "--no-wait"), ("secret", "product")],
    ids=" ".join,
)
def test_wrong_usage(provision: Provision, words: tuple[str, ...]) -> None:
    done = provision(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python3 -m provision")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_lists_verbs_and_examples_and_exit_codes(provision: Provision) -> None:
    done = provision("--help")
    assert done.returncode == 0
    for verb in ("converge", "check", "remove", "explain", "status", "boot", "secret"):
        assert f"\n    {verb} " in done.stdout
    assert "examples:" in done.stdout
    assert "exit codes: 0 good, 1 a check failed, 2 bad input, 3" in done.stdout


@pytest.mark.parametrize("verb", ["converge", "check", "remove", "explain"])
def test_plan_that_does_not_name_this_host(provision: Provision, verb: str, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(shop.text().replace("host1", "elsewhere1").replace("host2", "elsewhere2"))
    done = provision(verb, "phase1", "--plan", str(plan))
    assert done.returncode == 2
    first, hint = done.stderr.splitlines()
    assert "the plan has no host of this name" in first
    assert hint.startswith("    hint: ")
    assert done.stdout == ""


def test_plan_with_mistakes(provision: Provision, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(shop.text(("lab: of-the-tests", "lab: Under Lay"), ("port: 3000", "port: 0")))
    done = provision("explain", "phase1", "--plan", str(plan))
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 2
    assert f"error: {plan}:3: " in done.stderr
    assert "Traceback" not in done.stderr


def test_plan_that_is_not_there(provision: Provision, tmp_path: Path) -> None:
    done = provision("check", "phase1", "--plan", str(tmp_path / "nothing.yaml"))
    assert done.returncode == 2
    assert "there is no such file" in done.stderr


def test_secret_for_an_unknown_owner_is_refused_before_anything_is_written(
    provision: Provision, tmp_path: Path
) -> None:
    done = provision("secret", "product", str(tmp_path / "file"), "--owner", "nobody-of-this-name")
    assert done.returncode == 2
    assert "there is no user nobody-of-this-name" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_secret_is_not_written_into_a_file_that_others_hold_open(
    provision: Provision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provision.__main__._PLACES", Places(settings=tmp_path))
    (tmp_path / "secret").write_text("the lab's own")
    file = tmp_path / "password"
    file.touch(mode=0o644)
    with file.open() as other:
        done = provision("secret", "product", str(file), "--owner", pwd.getpwuid(os.getuid()).pw_name)
        assert other.read() == ""
    assert done.returncode == 0
    assert len(file.read_text()) == 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
