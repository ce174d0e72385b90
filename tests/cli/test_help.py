"""What the command says of itself."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from underlay import __version__
from underlay.cli.main import cli, main

ROOT = Path(__file__).parents[2]
VERBS = (
    "up", "test", "down", "status", "exec", "shell", "logs", "converge", "check", "explain", "remove", "plan", "image",
    "vm-env", "vagrant", "vm", "bench", "leftovers", "completion",
)  # fmt: skip
#: Its help is Vagrant's own.
_PASSED_ON = "vagrant"
#: Called by the Vagrantfile and not by people, who need no examples of them.
_INTERNAL = "vm"
#: Seconds of CPU that `--help` may cost: nobody waits for a page of text.
_QUICK_S = 0.5


def commands(command: click.Command = cli, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The words of every command below, and whether it is one that does something itself."""
    if not isinstance(command, click.Group):
        yield words, True
        return
    if words:
        yield words, False
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from commands(below, (*words, name))


ALL = tuple((words, does) for words, does in commands() if words[0] != _PASSED_ON)


def test_verbs_are_the_ones_that_are_promised() -> None:
    assert tuple(cli.list_commands(click.Context(cli))) == VERBS


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_every_verb_and_exit_codes(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([option]) == 0
    said = capsys.readouterr().out
    for verb in VERBS:
        assert f"\n  {verb} " in said
    assert "Examples:" in said
    assert "Exit codes: 0 good, 1 a check failed, 2 bad input or usage, 3" in said


def test_help_costs_little() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "underlay", "--help"], cwd=ROOT, check=True, timeout=30, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < _QUICK_S


@pytest.mark.parametrize(("words", "does"), ALL, ids=[" ".join(words) for words, _ in ALL])
def test_each_commands_help(words: tuple[str, ...], does: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith(f"Usage: ./lab {' '.join(words)} ")
    assert r"\b" not in said.out, "a docstring with click's mark must not be a raw one"
    if does and words[0] != _INTERNAL:
        assert "Example" in said.out
        assert f"./lab {words[0]}" in said.out or "./lab --plan" in said.out
    assert all(len(line) <= 120 for line in said.out.splitlines())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_without_a_verb_it_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr()
    assert "Verbs:" in said.out + said.err


@pytest.mark.parametrize(
    "words",
    [
        ("frobnicate",),
        ("--frobnicate", "status"),
        ("status", "--frobnicate"),
        ("up", "--frobnicate"),
        ("down", "a", "b"),
        ("exec",),
        ("exec", "host1"),
        ("converge",),
        ("converge", "phase0"),
        ("explain", "phase1", "host1"),
        ("plan", "frobnicate"),
        ("image", "frobnicate"),
        ("image", "build", "--frobnicate"),
        ("bench", "frobnicate"),
        ("leftovers", "compare", "no-such-file"),
        ("logs", "host1", "-n", "many"),
        ("completion", "csh"),
        ("test", "frobnicate"),
    ],
    ids=" ".join,
)
def test_wrong_usage(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert "Usage: ./lab" in said.err
    assert "Error: " in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_wrong_usage_of_the_program_itself() -> None:
    """As above, in a process of its own: nothing between us and the shell changes code or words."""
    done = subprocess.run(
        [sys.executable, "-m", "underlay", "frobnicate"],
        cwd=ROOT, env={**os.environ, "COLUMNS": "80"}, check=False, timeout=30, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "No such command" in done.stderr
    assert "Traceback" not in done.stderr
