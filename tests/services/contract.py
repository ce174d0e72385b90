"""The OpenAPI file, and a check of an answer against it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import cast

import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

FILE = Path(__file__).parents[2] / "services" / "openapi.yaml"
_JSON = "application/json"

Node = Mapping[str, object]


@cache
def document() -> Node:
    return cast("Node", yaml.safe_load(FILE.read_text(encoding="utf-8")))


def documented() -> set[tuple[str, str, int]]:
    """Every (path, method, status) of the document."""
    found = set()
    for path, item in _node(document(), "paths").items():
        for method, operation in cast("Node", item).items():
            if method != "parameters":
                found |= {(path, method, int(status)) for status in _node(cast("Node", operation), "responses")}
    return found


def check(path: str, method: str, status: int, headers: Mapping[str, str], body: object) -> None:
    """Raise AssertionError if an answer is not as the document says."""
    responses = _node(document(), "paths", path, method, "responses")
    assert str(status) in responses, f"{method} {path} is not documented to answer {status}: {body}"
    response = cast("Node", responses[str(status)])
    assert headers["Content-Type"] == _JSON
    assert headers.get("X-Served-By") == "edge" or headers["Cache-Control"] == "no-store"
    for name in _node(response, "headers"):
        assert name in headers, f"{method} {path} {status}: no header {name}"
        _validate(_node(document(), "components", "headers", name, "schema"), headers[name])
    _validate(_node(response, "content", _JSON, "schema"), body)


def _validate(schema: Node, value: object) -> None:
    whole = {**schema, "components": document()["components"]}
    Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)


def _node(node: Node, *keys: str) -> Node:
    for key in keys:
        node = cast("Node", node[key])
    return node
