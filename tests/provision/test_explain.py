"""How single steps are written in the script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision.explain import explain
from provision.marks import Mark
from provision.resource import Await, Background, Command, Feed, Phase, Resource, Section, Step, Write
from provision.system import System
from underlay.process import run

_MARK = Mark("phase9", 9)


@dataclass(frozen=True, slots=True)
class Said(Resource):
    """A resource that is nothing but its steps."""

    steps: tuple[Step, ...]

    @property
    def identity(self) -> str:
        return "steps"

    @property
    def batched(self) -> bool:
        return False

    def observe(self, system: System) -> str | None:
        raise NotImplementedError

    def apply(self, system: System) -> None:
        raise NotImplementedError

    def say(self, mark: Mark) -> Sequence[Step]:
        assert mark is _MARK
        return self.steps


def script(*steps: Step) -> str:
    return explain(Phase(_MARK, (Section("Steps", "Because.", (Said(steps),)),)), "host7")


def lines(*steps: Step) -> list[str]:
    text = script(*steps)
    assert text.endswith("\n")
    return text[text.index("# steps\n") + len("# steps\n") :].splitlines()


def test_head_says_what_it_is_and_how_to_undo_it() -> None:
    head, *rest = script().splitlines()
    assert head == "#!/bin/sh"
    assert rest[0] == "# Made by Underlay, phase9."
    assert "phase9 on host7" in rest[1]
    assert "provision remove phase9" in rest[2]
    assert rest[3] == "set -eu"


def test_empty_section_is_not_mentioned() -> None:
    phase = Phase(_MARK, (Section("Empty", "No.", ()), Section("Full", "Yes.", (Said((Command(("true",)),)),))))
    text = explain(phase, "host7")
    assert "Empty" not in text
    assert "# 2. Full" in text


@pytest.mark.parametrize("word", ["a b", "$HOME", "it's", "", "`id`", "*", "#", "a\\b", "<<END"])
def test_words_reach_the_program_as_they_are(word: str) -> None:
    done = run(("sh",), stdin=script(Command(("printf", "%s", word))), timeout=10)
    assert done.stdout == word


@pytest.mark.parametrize("text", ["", "one\n", "$HOME `id` \\ 'x'\n", "no end of line", "\n\n", "end\n  END\n"])
def test_fed_text_reaches_the_program_as_it_is(text: str) -> None:
    done = run(("sh",), stdin=script(Feed(("cat",), text)), timeout=10)
    assert done.stdout == text.removesuffix("\n") + "\n"


def test_file_is_written_whole_with_its_mode_and_owner() -> None:
    assert lines(Write("/etc/a b/c", "x\ny\n", 0o600, "shop")) == [
        "mkdir -p '/etc/a b'",
        "cat > '/etc/a b/c' <<'END'",
        "x",
        "y",
        "END",
        "chown shop:shop '/etc/a b/c'",
        "chmod 600 '/etc/a b/c'",
    ]
    assert lines(Write("/etc/c", "x\n"))[-1] == "END"


def test_command_in_the_background_is_waited_for_at_the_end(tmp_path: Path) -> None:
    # It lets go of our pipe, or reading the script's output to its end would be waiting enough.
    late = Background(("sh", "-c", f"exec >/dev/null 2>&1; sleep 0.2; echo late > {tmp_path}/late"))
    done = run(("sh",), stdin=script(late, Command(("echo", "soon"))), timeout=10)
    assert done.stdout == "soon\n"
    assert (tmp_path / "late").read_text() == "late\n"


def test_awaited_command_is_repeated() -> None:
    assert lines(Await(("psql", "a b"))) == ["until psql 'a b' >/dev/null 2>&1; do sleep 0.1; done"]
