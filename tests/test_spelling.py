"""One spelling of the command: what a person is told to paste is `./lab VERB`, wherever it is told."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import click
import pytest

from tests.test_house import ROOT, files, product
from underlay.cli.main import cli

_VERBS = "|".join(sorted(cli.list_commands(click.Context(cli)), key=len, reverse=True))
#: `underlay VERB`; and `lab VERB` where a command is named: at the beginning, in quotes, after a colon or semicolon.
_OTHERWISE = re.compile(rf"(?<![\w./-])underlay (?:{_VERBS})\b|(?:^|[`'\"(]|[:;] ?|\bsay )lab (?:{_VERBS})\b")
#: Without its first word, where a command is named.
_SHORTENED = re.compile(
    r"[:`] ?(?:image (?:build|clean|box)|leftovers save|converge phase\d|exec host|logs [A-Za-z]+\b)"
)
#: Vagrant's own, which means another lab where a plan was asked for, and nobody where `vm-env` made the network.
_VAGRANT = re.compile(r"(?<!\./lab )\bvagrant (?:up|reload|provision|destroy)\b")
#: Texts for people that are no Python.
TEXTS = tuple(
    path
    for path in files()
    if path.suffix in {".md", ".yaml"} or path.name in {"lab", "Vagrantfile", "tox.ini", "run"}
)  # fmt: skip


def strings(tree: ast.Module, *, docstrings: bool = True) -> Iterator[tuple[int, str]]:
    """Every text of a module with its line, the parts of f-strings too."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (docstrings or id(node) not in alone):
            yield node.lineno, node.value


def test_programs_spell_it_one_way() -> None:
    found = [
        f"{name}:{line}: {match[0]}"
        for name, tree in product().items()
        for line, text in strings(tree)
        for pattern in (_OTHERWISE, _SHORTENED)
        for match in pattern.finditer(text)
    ]
    assert found == []


def test_vagrant_is_named_through_the_command() -> None:
    """In what is told while it runs; a docstring may speak of Vagrant itself."""
    found = [
        f"{name}:{line}: {match[0]}"
        for name, tree in product().items()
        for line, text in strings(tree, docstrings=False)
        for match in _VAGRANT.finditer(text)
    ]
    assert found == []


def test_texts_spell_it_one_way() -> None:
    assert {ROOT / "README.md", ROOT / "lab", ROOT / "Vagrantfile"} <= set(TEXTS)
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}" for path in TEXTS for match in _OTHERWISE.finditer(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "text", ["see: lab down", "`lab down` removes", "underlay image build", "lab up", "say lab up"]
)
def test_another_spelling_is_found(text: str) -> None:
    assert _OTHERWISE.search(text)


@pytest.mark.parametrize("text", ["./lab up", "bring the lab up", "see: ./lab down", "the lab test", "underlay.cli.up"])
def test_sentences_are_not_taken_for_commands(text: str) -> None:
    assert not _OTHERWISE.search(text)
