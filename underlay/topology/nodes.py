"""YAML nodes read as typed values. Each value keeps its line; each mistake is noted and reading goes on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

from yaml import MappingNode, Node, ScalarNode, SequenceNode

from underlay.topology.notes import Marked, Notes, join, show, suggest

_YAML = "tag:yaml.org,2002:"
#: Plain decimal only: YAML 1.1 would read 010 as 8, 1_000 as 1000 and 22:22 as 1342 (yaml.org/type/int.html).
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?")
_SUBNET = re.compile(r"([0-9.]+)/(0|[1-9][0-9]?)")
_DECIMAL = "write it in plain decimal digits, without leading zeros"
_PAIRS = "write `key: value` pairs, in braces or each on a line of its own, indented"
_QUADS = "write four numbers from 0 to 255 with dots between them; the lab is IPv4 only"
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def line_of(node: Node) -> int:
    """Return the line on which the node starts, counted from 1."""
    return int(node.start_mark.line) + 1


def describe(node: Node) -> str:
    """Return what stands there, in words."""
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    kind = node.tag.removeprefix(_YAML)
    if kind == "null":
        return "empty"
    if kind == "str":
        return f"the text {show(node.value)}"
    if kind in {"int", "float"}:
        return f"the number {show(node.value)[1:-1]}"
    if kind == "bool":
        return f"the boolean {show(node.value)[1:-1]}"
    return f"{show(node.value)} of type {show(kind)[1:-1]}"


def is_empty(node: Node) -> bool:
    """Whether nothing (or ``null``) stands there."""
    return isinstance(node, ScalarNode) and node.tag == _YAML + "null"


class Section:
    """A mapping of the plan, read key by key. ``path`` is its place in messages (``services.edge``).

    Making it notes keys that are unknown, missing, doubled or no text. The reading methods return None for what is
    wrong, having noted it, or missing, which was noted before.
    """

    def __init__(
        self,
        notes: Notes,
        path: str,
        line: int,
        node: MappingNode,
        required: Iterable[str],
        optional: Iterable[str] = (),
    ) -> None:
        self.line = line
        self.has_unknown_keys = False
        self._notes = notes
        self._path = path
        self._values: dict[str, tuple[int, Node]] = {}
        required, known = tuple(required), (*required, *optional)
        for key, value in pairs(notes, path, node):
            if key.value in known:
                self._values[key.value] = (key.line, value)
            else:
                self.has_unknown_keys = True
                hint = suggest(key.value, known, f"known here: {', '.join(known)}")
                notes.add(key.line, f"{self.place(key.value)}: unknown key", hint)
        for name in required:
            if name not in self._values:
                notes.add(line, f"{self.place(name)} is missing", f"add `{name}:` to {path or 'the plan'}")

    def place(self, key: str) -> str:
        """Return the dotted path of a key, for messages."""
        return join(self._path, key)

    def line_of(self, key: str) -> int:
        """Return the line of a key, or that of the section while the key is missing."""
        return self._values[key][0] if key in self._values else self.line

    def text(self, key: str) -> Marked[str] | None:
        """Read text."""
        node = self._node(key)
        if node is None:
            return None
        return text(self._notes, self.place(key), node)

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> Marked[int] | None:
        """Read a whole number from ``low`` to ``high``."""
        node = self._node(key)
        if node is None:
            return None if default is None else Marked(default, self.line)
        expected = f"expected a whole number from {low} to {high}"
        if not (isinstance(node, ScalarNode) and node.tag == _YAML + "int"):
            self._wrong(key, node, expected, _plainly(node, _INTEGER))
            return None
        if not _INTEGER.fullmatch(node.value):
            self._wrong(key, node, expected, _DECIMAL)
            return None
        value = int(node.value)
        if not low <= value <= high:
            self._wrong(key, node, expected, "choose a number in that range")
            return None
        return Marked(value, line_of(node))

    def seconds(self, key: str, low: float, high: float) -> Marked[float] | None:
        """Read a time in seconds from ``low`` to ``high``."""
        node = self._node(key)
        if node is None:
            return None
        expected = f"expected a number of seconds from {low:g} to {high:g}"
        if not (isinstance(node, ScalarNode) and node.tag in {_YAML + "int", _YAML + "float"}):
            self._wrong(key, node, expected, _plainly(node, _NUMBER))
            return None
        if not _NUMBER.fullmatch(node.value):
            self._wrong(key, node, expected, _DECIMAL)
            return None
        value = float(node.value)
        if not low <= value <= high:
            self._wrong(key, node, expected, "choose a number in that range")
            return None
        return Marked(value, line_of(node))

    def boolean(self, key: str, *, default: bool) -> bool:
        """Read true or false; what is wrong is noted and read as the default."""
        node = self._node(key)
        if node is None:
            return default
        if isinstance(node, ScalarNode) and node.tag == _YAML + "bool" and node.value.lower() in _TRUTH:
            return _TRUTH[node.value.lower()]
        self._wrong(key, node, "expected true or false", "write true or false, without quotes")
        return default

    def address(self, key: str) -> Marked[IPv4Address] | None:
        """Read an IPv4 address without a prefix length."""
        node = self._node(key)
        if node is None:
            return None
        expected = "expected an IPv4 address such as 192.168.56.11"
        if not (isinstance(node, ScalarNode) and node.tag == _YAML + "str"):
            self._wrong(key, node, expected, _QUADS)
            return None
        try:
            return Marked(IPv4Address(node.value), line_of(node))
        except ValueError:
            bare, slash, _ = node.value.partition("/")
            hint = f"leave out the prefix length: {bare}" if slash and _is_address(bare) else _QUADS
            self._wrong(key, node, expected, hint)
            return None

    def subnet(self, key: str, shortest: int, longest: int) -> Marked[IPv4Network] | None:
        """Read an IPv4 subnet whose prefix length is from ``shortest`` to ``longest``."""
        node = self._node(key)
        if node is None:
            return None
        expected = "expected an IPv4 subnet such as 10.77.1.0/24"
        if not (isinstance(node, ScalarNode) and node.tag == _YAML + "str"):
            self._wrong(key, node, expected, _QUADS)
            return None
        match = _SUBNET.fullmatch(node.value)
        if not (match and _is_address(match[1]) and int(match[2]) <= IPv4Address(0).max_prefixlen):
            hint = (
                f"add its prefix length: {node.value}/24"
                if _is_address(node.value)
                else f"{_QUADS}, then / and up to 32"
            )
            self._wrong(key, node, expected, hint)
            return None
        subnet = IPv4Network(node.value, strict=False)
        if not shortest <= subnet.prefixlen <= longest:
            length = min(max(subnet.prefixlen, shortest), longest)
            near = IPv4Network((subnet.network_address, length), strict=False)
            self._wrong(key, node, f"expected a prefix length from /{shortest} to /{longest}", f"for example {near}")
            return None
        if str(subnet.network_address) != match[1]:
            self._wrong(key, node, "bits are set after the prefix", f"the subnet with that address is {subnet}")
            return None
        return Marked(subnet, line_of(node))

    def section(self, key: str, required: Iterable[str], optional: Iterable[str] = ()) -> Section | None:
        """Read a mapping with these keys."""
        node = self._node(key)
        if node is None:
            return None
        line = self._values[key][0]
        return section(self._notes, self.place(key), line, node, required, optional)

    def named(self, key: str) -> list[tuple[Marked[str], Node]] | None:
        """Read a mapping from names to anything; None if it is not one."""
        node = self._node(key)
        if node is None:
            return None
        if not isinstance(node, MappingNode):
            self._wrong(key, node, "expected a mapping from names to their settings", _PAIRS)
            return None
        return list(pairs(self._notes, self.place(key), node))

    def entries(self, key: str) -> list[tuple[str, Node]] | None:
        """Read a list as (place, node); empty when the key is missing or empty, None if it is no list."""
        node = self._node(key)
        if node is None or is_empty(node):
            return []
        if not isinstance(node, SequenceNode):
            self._wrong(key, node, "expected a list", "begin each entry on a line of its own with `- `")
            return None
        return [(f"{self.place(key)}[{number}]", entry) for number, entry in enumerate(node.value, 1)]

    def _node(self, key: str) -> Node | None:
        found = self._values.get(key)
        return None if found is None else found[1]

    def _wrong(self, key: str, node: Node, expected: str, hint: str) -> None:
        wrong(self._notes, self.place(key), node, expected, hint)


def section(
    notes: Notes, path: str, line: int, node: Node, required: Iterable[str], optional: Iterable[str] = ()
) -> Section | None:
    """Return the node as a Section, or note that it is no mapping."""
    if isinstance(node, MappingNode):
        return Section(notes, path, line, node, required, optional)
    wrong(notes, path, node, f"expected a mapping with the keys {', '.join((*required, *optional))}", _PAIRS)
    return None


def text(notes: Notes, place: str, node: Node) -> Marked[str] | None:
    """Return the node as text, or note that it is none."""
    if isinstance(node, ScalarNode) and node.tag == _YAML + "str":
        return Marked(node.value, line_of(node))
    plain = isinstance(node, ScalarNode) and not is_empty(node)
    hint = "put it in quotes if it is meant as text" if plain else "write a word there"
    wrong(notes, place, node, "expected text", hint)
    return None


def wrong(notes: Notes, place: str, node: Node, expected: str, hint: str) -> None:
    """Note that the node is not what was expected."""
    notes.add(line_of(node), f"{place} is {describe(node)}; {expected}", hint)


def pairs(notes: Notes, path: str, node: MappingNode) -> Iterator[tuple[Marked[str], Node]]:
    """Yield the keys and values of a mapping; keys that are doubled or no text are noted and left out.

    Merge keys (``<<: *other``, yaml.org/type/merge.html) are followed; what the mapping says itself comes before.
    """
    seen: dict[str, int] = {}
    for key, value in _own(node):
        name = _key(notes, path, key)
        if name is None:
            continue
        if name.value in seen:
            what = f"{join(path, name.value)} stands here again; it is already on line {seen[name.value]}"
            notes.add(name.line, what, "keep one of the two")
            continue
        seen[name.value] = name.line
        yield name, value
    for key, value in _merged(notes, path, node, {id(node)}):
        name = _key(notes, path, key)
        if name is not None and name.value not in seen:
            seen[name.value] = name.line
            yield name, value


def _own(node: MappingNode) -> Iterator[tuple[Node, Node]]:
    return ((key, value) for key, value in node.value if key.tag != _YAML + "merge")


def _merged(notes: Notes, path: str, node: MappingNode, visited: set[int]) -> Iterator[tuple[Node, Node]]:
    for key, value in node.value:
        if key.tag != _YAML + "merge":
            continue
        for source in value.value if isinstance(value, SequenceNode) else [value]:
            if not isinstance(source, MappingNode):
                wrong(notes, join(path, "<<"), source, "expected an alias of a mapping", "write `<<: *name`")
            elif id(source) not in visited:
                visited.add(id(source))  # an alias may lead back to where it stands
                yield from _own(source)
                yield from _merged(notes, path, source, visited)


def _key(notes: Notes, path: str, node: Node) -> Marked[str] | None:
    if isinstance(node, ScalarNode) and node.tag == _YAML + "str":
        return Marked(node.value, line_of(node))
    hint = "put the key in quotes" if isinstance(node, ScalarNode) and not is_empty(node) else "write a word there"
    notes.add(line_of(node), f"a key of {path or 'the plan'} is {describe(node)}; expected text", hint)
    return None


def _plainly(node: Node, pattern: re.Pattern[str]) -> str:
    quoted = isinstance(node, ScalarNode) and node.style in {"'", '"'} and pattern.fullmatch(node.value)
    return "leave out the quotes" if quoted else _DECIMAL


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True
