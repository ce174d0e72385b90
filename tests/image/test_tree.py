from __future__ import annotations

import os
from pathlib import Path

import pytest

from underlay.errors import NotReady
from underlay.image.tree import compare_trees, parse_tree, read_tree, tree_digest, tree_text


def _make(root: Path) -> Path:
    (root / "etc").mkdir(parents=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (root / "etc/a name with spaces").write_text("")
    (root / "etc/link").symlink_to("hosts")
    (root / "etc/again").hardlink_to(root / "etc/hosts")
    (root / os.fsdecode(b"etc/latin\xe9")).write_text("x")
    _settle(root)
    return root


def _settle(root: Path) -> None:
    for path in (*root.rglob("*"), root):
        os.utime(path, (1, 1), follow_symlinks=False)


def test_equal_trees_have_equal_lists(tmp_path: Path) -> None:
    one = tree_text(read_tree(_make(tmp_path / "one")))
    two = tree_text(read_tree(_make(tmp_path / "two")))
    assert one == two
    assert tree_digest(one) == tree_digest(two)


def test_list_survives_writing_and_reading(tmp_path: Path) -> None:
    entries = read_tree(_make(tmp_path / "one"))
    assert parse_tree(tree_text(entries)) == entries
    by_path = {entry.path: entry for entry in entries}
    assert by_path["etc/hosts"].content == "=etc/again"  # the first name by order carries the hash
    assert by_path["etc/link"].content == "hosts"
    assert "." in by_path
    assert "etc/a name with spaces" in by_path


def test_a_damaged_list_is_told() -> None:
    with pytest.raises(NotReady, match=r"tree\.txt:1: not a line"):
        parse_tree("file 0644\n")


def test_every_kind_of_change_is_found(tmp_path: Path) -> None:
    before = read_tree(_make(tmp_path / "one"))
    two = _make(tmp_path / "two")
    (two / "etc/again").unlink()
    (two / "etc/hosts").chmod(0o600)
    (two / "etc/a name with spaces").write_text("changed")
    (two / "etc/link").unlink()
    (two / "etc/link").symlink_to("elsewhere")
    (two / "new").mkdir()
    _settle(two)
    found = {item.path: item.what for item in compare_trees(before, read_tree(two))}
    assert found.keys() == {"etc/again", "etc/hosts", "etc/a name with spaces", "etc/link", "new"}
    assert found["etc/again"] == "only in the first"
    assert found["new"] == "only in the second"
    assert "mode 0644 -> 0600" in found["etc/hosts"]
    assert "size 0 -> 7" in found["etc/a name with spaces"]
    assert found["etc/link"] == "content hosts -> elsewhere"


def test_a_time_counts(tmp_path: Path) -> None:
    before = read_tree(_make(tmp_path / "one"))
    os.utime(tmp_path / "one/etc", (2, 2))
    (difference,) = compare_trees(before, read_tree(tmp_path / "one"))
    assert (difference.path, difference.what) == ("etc", "mtime 1 -> 2")


def test_an_extended_attribute_counts(tmp_path: Path) -> None:
    root = _make(tmp_path / "one")
    before = read_tree(root)
    try:
        os.setxattr(root / "etc/hosts", "user.note", b"hello")
    except OSError as error:
        pytest.skip(f"{tmp_path} keeps no extended attributes: {error.strerror}")
    found = compare_trees(before, read_tree(root))
    assert {item.path for item in found} == {"etc/hosts", "etc/again"}  # two names of one file
    assert "xattrs none -> user.note=68656c6c6f" in found[0].what


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    read_tree(_make(tmp_path / "one"), lambda done, total: heard.append((done, total)))
    assert heard
    assert heard[-1][0] == heard[-1][1]
