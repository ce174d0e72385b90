"""From the text of a plan to the plan; the only place of this package that reads a file."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import yaml

from underlay.errors import InputError, Problem
from underlay.topology.check import check, check_rooms
from underlay.topology.derive import build
from underlay.topology.draft import read
from underlay.topology.model import Plan
from underlay.topology.nodes import describe
from underlay.topology.notes import Notes, printable

#: Bytes. A plan of a thousand services is half of this; YAML of another size is no plan.
MOST_BYTES = 256 * 1024
#: Where PyYAML's two parsers may differ; `->` is ours, of flows.
_DIFFERENT = re.compile(r"[^ -~\n]|[!?|]|(?<!-)>")


def load_plan(path: Path) -> Plan:
    """Read the plan from a file. Raises InputError with every mistake found in it."""
    source = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        hint = "run the command in the directory of the repository, or give the path of a plan"
        raise InputError(Problem(source, "there is no such file; expected a plan", hint)) from None
    except IsADirectoryError:
        hint = "give the path of the plan itself, such as topology.yaml"
        raise InputError(Problem(source, "this is a directory; expected a plan", hint)) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(
            Problem(source, f"the plan cannot be read: {reason}", "is it a file that you may read?")
        ) from None
    if len(content) > MOST_BYTES:
        raise _too_long(source)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"byte {content[error.start]:#04x} is no UTF-8; expected text in UTF-8"
        raise InputError(Problem(f"{source}:{line}", what, "save the file as UTF-8")) from None
    return parse_plan(text, source)


def parse_plan(text: str, source: str) -> Plan:
    """Turn the text of a plan into the plan; ``source`` is its name in messages.

    Raises InputError with every mistake found, in the order of lines.
    """
    if len(text) > MOST_BYTES:
        raise _too_long(source)
    quick = _compose_quickly(text)
    if isinstance(quick, yaml.MappingNode):
        with suppress(InputError):  # said below, with the lines that count
            return _plan(quick, source)
    root = _compose(text, source)
    if root is None:
        raise InputError(Problem(f"{source}:1", "the plan is empty", "begin with the topology.yaml of the repository"))
    if not isinstance(root, yaml.MappingNode):
        line = root.start_mark.line + 1
        what = f"the plan is {describe(root)}; expected a mapping that begins like `lab: underlay`"
        raise InputError(Problem(f"{source}:{line}", what, "begin with the topology.yaml of the repository"))
    return _plan(root, source)


def _plan(root: yaml.MappingNode, source: str) -> Plan:
    notes = Notes(source)
    draft = read(notes, root)
    check(notes, draft)
    notes.finish()
    plan = build(draft)
    check_rooms(notes, draft, plan)
    notes.finish()
    return plan


def _compose_quickly(text: str) -> yaml.Node | None:
    """Return what :func:`_compose` would, a dozen times sooner; None if that one has to be asked.

    PyYAML's parser in C and the one in Python take each other's YAML but for tags, `?`, block texts and what is not
    ASCII, where they differ in what they allow or in lines. The composer in C is not used: it has no limit of depth.
    """
    if not yaml.__with_libyaml__ or _DIFFERENT.search(text):
        return None
    from underlay.topology.quick import compose

    try:
        return compose(text)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return None


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        said = ", ".join(part for part in (error.context, error.problem) if part)
        said = printable(said)
        raise InputError(Problem(where, f"this is not YAML: {said}", _yaml_hint(said))) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"this is not YAML: the character U+{ord(text[error.position]):04X} may not stand there"
        raise InputError(Problem(f"{source}:{line}", what, "remove it")) from None
    except RecursionError:
        what = "brackets or indentation go too deep; a plan needs four levels"
        raise InputError(Problem(source, what, "is this the right file?")) from None
    except (ValueError, OverflowError):  # an escape or a directive with a number that is too large
        raise InputError(
            Problem(source, "this is not YAML: an escape or a version in it is too large", "look for \\U and %YAML")
        ) from None


def _yaml_hint(said: str) -> str:
    if r"'\t'" in said:
        return "indent with spaces"
    if "mapping values are not allowed" in said:
        return "is the indentation right, and is a text that contains ': ' in quotes?"
    if "but found another document" in said:
        return "a plan is one document: remove the line ---"
    if "undefined alias" in said:
        return "an alias (*name) needs its anchor (&name) before it; put a text that begins with * in quotes"
    return "look at the indentation, brackets and quotes here and on the line before"


def _too_long(source: str) -> InputError:
    return InputError(Problem(source, f"this is longer than {MOST_BYTES} bytes", "is this the right file?"))
