"""Mounts are found under every name that a directory can have: in texts, and in a mount namespace of our own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underlay import mountinfo
from underlay.process import run
from underlay.repository import REPOSITORY

_SECONDS = 20.0
_NAMES = st.binary(min_size=1, max_size=12).map(lambda name: name.translate(None, b"/\0")).filter(
    lambda name: name not in {b"", b".", b".."}
)  # fmt: skip
_PATHS = st.lists(_NAMES, max_size=4).map(lambda names: b"/" + b"/".join(names))
#: What is awkward in a path, and in a Python text: spaces, escapes, umlauts, Latin-1, ends of lines that are none.
AWKWARD = (
    b"Gr\xc3\xb6\xc3\x9fe x",
    b"tab\there",
    b"new\nline",
    b"back\\040slash",
    b"Latin-1 \xfc",
    "\u2028\xa0\x85".encode(),
)

#: Mounts a directory on one below a tree of the store, and has the tree removed.
_REMOVE = """
import sys
from pathlib import Path
from underlay.artifacts import remove_tree
from underlay.process import run
tree, precious, point = sys.argv[1:]
run(("mount", "--bind", precious, point), timeout=20)
remove_tree(Path(tree))
"""
#: Mounts something, and says where mounts are seen.
_SEE = """
import os, sys
from underlay import mountinfo
from underlay.process import run
run(("mount", "-t", "tmpfs", "a source", sys.argv[1]), timeout=20)
(mount,) = [mount for mount in mountinfo.mounts() if mount.source == "a source"]
sys.stdout.buffer.write(os.fsencode(mount.point))
assert mount.kind == "tmpfs"
"""


def _escaped(path: bytes) -> bytes:
    """As the kernel does it (fs/seq_file.c, mangle_path)."""
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else bytes((byte,)) for byte in path)


@given(root=_PATHS, point=_PATHS, optional=st.sampled_from([b"", b"shared:9 ", b"shared:3 master:2 unbindable "]))
def test_every_path_comes_back_as_it_was(root: bytes, point: bytes, optional: bytes) -> None:
    line = b"36 35 98:0 %s %s rw,noatime %s- ext3 a\\043b rw,errors=continue\n"
    content = line % (_escaped(root), _escaped(point), optional)
    first, second = mountinfo.parse(content * 2)
    assert first == second
    assert os.fsencode(first.point) == point
    assert os.fsencode(first.root) == root
    assert (first.number, first.parent, first.device) == (36, 35, "98:0")
    assert (first.options, first.kind, first.source) == ("rw,noatime", "ext3", "a#b")
    assert first.super_options == "rw,errors=continue"


@pytest.mark.parametrize("content", [b"x", b"36 35 98:0 / / rw ext3 none rw", b"36 x 98:0 / / rw - ext3 none rw"])
def test_another_text_is_refused_with_its_line(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a line of a mountinfo file"):
        mountinfo.parse(content)


def test_a_source_may_be_empty() -> None:
    (mount,) = mountinfo.parse(b"36 35 0:50 / /m rw - tmpfs  rw\n")
    assert (mount.kind, mount.source, mount.super_options) == ("tmpfs", "", "rw")


def test_the_root_directory_is_mounted_here() -> None:
    assert Path("/") in {mount.point for mount in mountinfo.mounts()}


def _apart(program: str, *arguments: str) -> str:
    """Run a Python program in a mount namespace of its own, and return what it said."""
    own = ("unshare", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")), "--mount", "--propagation=private")
    if not run((*own, "true"), timeout=_SECONDS, check=False).ok:
        pytest.skip("this machine allows no mount namespace here")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    return run((*own, "--", sys.executable, "-c", program, *arguments), timeout=_SECONDS, env=environment).stdout


@pytest.mark.parametrize("name", AWKWARD)
def test_a_mount_is_seen_under_an_awkward_name(tmp_path: Path, name: bytes) -> None:
    point = tmp_path / os.fsdecode(name)
    point.mkdir()
    assert _apart(_SEE, str(point)) == os.fsencode(point).decode(errors="replace")


@pytest.mark.parametrize("name", AWKWARD)
def test_a_tree_is_never_removed_through_a_mount_below_it(tmp_path: Path, name: bytes) -> None:
    tree, precious = tmp_path / os.fsdecode(b".underlay-building-" + name), tmp_path / "precious"
    point = tree / "rootfs" / os.fsdecode(name)
    point.mkdir(parents=True)
    precious.mkdir()
    (precious / "file").write_text("kept")
    _apart(_REMOVE, str(tree), str(precious), str(point))
    assert (precious / "file").read_text() == "kept"
    assert not tree.exists()
