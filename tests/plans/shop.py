"""The plan that tests are made with, whole or changed: no test but ``test_shipped.py`` looks at topology.yaml."""

from __future__ import annotations

from pathlib import Path

from underlay.topology import Plan, load_plan, parse_plan

PATH = Path(__file__).with_name("shop.yaml")


def plan(*changes: tuple[str, str]) -> Plan:
    """The plan with some of its text replaced."""
    return parse_plan(text(*changes), "changed") if changes else load_plan(PATH)


def text(*changes: tuple[str, str]) -> str:
    """The plan's text with some of it replaced; each old text must stand there once."""
    said = PATH.read_text(encoding="utf-8")
    for old, new in changes:
        assert said.count(old) == 1, old
        said = said.replace(old, new)
    return said
