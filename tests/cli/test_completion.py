"""Completion: the scripts are taken by their shells, and the words that they ask for come."""

from __future__ import annotations

import shutil

import pytest

from underlay.cli.context import COMPLETE_VARIABLE
from underlay.cli.main import main
from underlay.process import run


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_taken_by_its_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(shell, capsys)
    assert "lab" in text
    assert f"_LAB_COMPLETE={shell}_complete" in text
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed, so it could not be asked to read the script")
    assert run((program, "-n"), stdin=text, timeout=10).stderr == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("lab st", {"status"}),
        ("lab ", {"up", "down", "status", "plan", "completion"}),
        ("lab converge ", {"phase1"}),
        ("lab shell h", {"host1", "host2"}),
        ("lab exec host1 --in gate", {"gateway-1", "gateway-2"}),
        ("lab exec host2 --in p3-prod", {"p3-product-1", "p3-product-2"}),
        ("lab plan sh", {"show"}),
    ],
)
def test_words_come(
    words: str, expected: set[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(COMPLETE_VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr()
    assert said.err == ""
    offered = {line.partition(",")[2] for line in said.out.splitlines()}
    assert expected <= offered
    assert all(word.startswith(words.rsplit(" ", maxsplit=1)[-1]) for word in offered)
