"""What a directory tree holds, as a list that can be hashed, stored and compared.

Two trees are the same when their lists are. The sha256 of an image is the sha256 of its list, so that
``sha256sum tree.txt`` says it too, and one reading serves the hash as well as the comparison.
"""

from __future__ import annotations

import hashlib
import os
import stat
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

from underlay.errors import NotReady, Problem

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "character-device",
    stat.S_IFBLK: "block-device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}
#: Set by the machine that the tree lies on, not part of what is in it.
_FOREIGN_XATTRS = frozenset({"security.selinux", "security.ima", "security.evm"})
#: Characters of a path that stand for themselves in the list; spaces and line ends never do.
_PLAIN = "/+,.:@~^=()[]{}!$&'*;#"


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a tree, relative to its root (which is ``.``).

    ``mode`` is octal; ``mtime`` in seconds since 1970. ``content`` is a file's sha256, a link's target, a device's
    major:minor, or ``=PATH`` for a further name (hard link) of a file listed before.
    ``xattrs`` are extended attributes, ACLs and file capabilities among them, as ``name=hex,...``.
    """

    kind: str
    mode: str
    uid: int
    gid: int
    size: int
    mtime: int
    xattrs: str
    content: str
    path: str

    def line(self) -> str:
        """Return the entry as one line of the list."""
        words = (self.mode, self.uid, self.gid, self.size, self.mtime, self.xattrs or "-", _quote(self.content) or "-")
        return " ".join((self.kind, *map(str, words), _quote(self.path)))


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that is not the same in two trees, and in what."""

    path: str
    what: str


def read_tree(root: Path, progress: Callable[[int, int], None] | None = None) -> tuple[Entry, ...]:
    """Read the whole tree below ``root``, sorted by path; ``progress`` hears bytes read and bytes in all."""
    names = list(_walk(root))
    total = sum(status.st_size for _, status in names if stat.S_ISREG(status.st_mode))
    first_names: dict[tuple[int, int], str] = {}
    entries: list[Entry] = []
    done = 0
    # hashlib lets other threads run while it works on a large block.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        contents = pool.map(lambda item: _content(root / item[0], item[1]), names)
        for (path, status), content in zip(names, contents, strict=True):
            regular = stat.S_ISREG(status.st_mode)
            identity = (status.st_dev, status.st_ino)
            if regular and status.st_nlink > 1 and first_names.setdefault(identity, path) != path:
                content = f"={first_names[identity]}"  # noqa: PLW2901
            entries.append(_entry(root, path, status, content))
            if progress is not None and regular:
                done += status.st_size
                progress(done, total)
    return tuple(entries)


def tree_text(entries: Iterable[Entry]) -> str:
    """Return the list as text, a line an entry."""
    return "".join(f"{entry.line()}\n" for entry in entries)


def parse_tree(text: str, where: str = "tree.txt") -> tuple[Entry, ...]:
    """Return the entries of such a text. Raises NotReady when it is damaged."""
    return tuple(_parse(line, f"{where}:{number}") for number, line in enumerate(text.splitlines(), start=1))


def tree_digest(text: str) -> str:
    """Return the sha256 of a tree: that of its list."""
    return hashlib.sha256(text.encode()).hexdigest()


def compare_trees(before: Iterable[Entry], after: Iterable[Entry]) -> tuple[Difference, ...]:
    """Return what differs between two trees, by path: names that came or went, and what changed of the others."""
    old = {entry.path: entry for entry in before}
    new = {entry.path: entry for entry in after}
    differences: list[Difference] = []
    for path in sorted(old.keys() | new.keys()):
        if path not in new:
            differences.append(Difference(path, "only in the first"))
        elif path not in old:
            differences.append(Difference(path, "only in the second"))
        elif changes := _changes(old[path], new[path]):
            differences.append(Difference(path, "; ".join(changes)))
    return tuple(differences)


def _changes(old: Entry, new: Entry) -> list[str]:
    names = (field.name for field in fields(Entry) if field.name != "path")
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in names)
    return [f"{name} {_shown(before)} -> {_shown(after)}" for name, before, after in pairs if before != after]


def _shown(value: str | int) -> str:
    return "none" if value == "" else str(value)


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every name below ``root`` (and itself), sorted, never following a link."""
    found = [(".", root.lstat())]
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(root / folder) as scan:
            for item in scan:
                path = f"{folder}/{item.name}" if folder else item.name
                status = item.stat(follow_symlinks=False)
                found.append((path, status))
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(path)
    return iter(sorted(found, key=lambda pair: os.fsencode(pair[0])))


def _content(path: Path, status: os.stat_result) -> str:
    if stat.S_ISREG(status.st_mode):
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    if stat.S_ISLNK(status.st_mode):
        return str(path.readlink())
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return ""


def _entry(root: Path, path: str, status: os.stat_result, content: str) -> Entry:
    return Entry(
        kind=_KINDS[stat.S_IFMT(status.st_mode)],
        mode=f"{stat.S_IMODE(status.st_mode):04o}",
        uid=status.st_uid,
        gid=status.st_gid,
        # A directory's size, and a link's, say something of the file system that they lie on.
        size=status.st_size if stat.S_ISREG(status.st_mode) else 0,
        mtime=int(status.st_mtime),
        xattrs=_xattrs(root / path),
        content=content,
        path=path,
    )


def _xattrs(path: Path) -> str:
    names = sorted(set(os.listxattr(path, follow_symlinks=False)) - _FOREIGN_XATTRS)
    return ",".join(f"{name}={os.getxattr(path, name, follow_symlinks=False).hex()}" for name in names)


def _quote(text: str) -> str:
    return urllib.parse.quote(os.fsencode(text), safe=_PLAIN)


def _unquote(text: str) -> str:
    return os.fsdecode(urllib.parse.unquote_to_bytes(text))


def _parse(line: str, where: str) -> Entry:
    try:
        kind, mode, uid, gid, size, mtime, xattrs, content, path = line.split(" ")
        return Entry(
            kind=kind,
            mode=mode,
            uid=int(uid),
            gid=int(gid),
            size=int(size),
            mtime=int(mtime),
            xattrs="" if xattrs == "-" else xattrs,
            content="" if content == "-" else _unquote(content),
            path=_unquote(path),
        )
    except ValueError as error:
        raise NotReady(
            Problem(
                where, f"not a line of a tree's list: {line[:80]!r}", "build the image again: ./lab image build --force"
            )
        ) from error
