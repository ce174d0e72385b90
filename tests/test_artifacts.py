"""What is built once and kept, whatever its kind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from underlay.artifacts import Kind, Manifest, Store, cache_directory, locked, mounts_below, remove_tree, space_problems
from underlay.errors import NotReady
from underlay.mountinfo import parse


@dataclass(frozen=True, slots=True)
class _Written(Manifest):
    created: str
    weight: int


@dataclass(frozen=True, slots=True)
class _Thing:
    path: Path
    built: datetime
    weight: int


def _make(path: Path, manifest: _Written) -> _Thing:
    return _Thing(path, datetime.fromisoformat(manifest.created), manifest.weight)


THINGS = Kind(
    folder="things",
    name="a thing",
    manifest=_Written,
    make=_make,
    again="make it again",
    closed=("things are not for this user", "be another one"),
)


def _publish(
    store: Store[_Written, _Thing], key: str, weight: int = 1, created: str = "2026-01-02T00:00:00+00:00"
) -> _Thing:
    with store.workplace(key) as place:
        (place / "file").write_text(str(weight))
        return store.publish(place, key, _Written(created, weight))


@pytest.fixture
def store(tmp_path: Path) -> Store[_Written, _Thing]:
    return Store(THINGS, tmp_path)


def test_a_new_kind_needs_no_more_than_a_manifest(store: Store[_Written, _Thing], tmp_path: Path) -> None:
    assert store.finished() == ()
    later, earlier = _publish(store, "later", created="2026-02-02T00:00:00+00:00"), _publish(store, "earlier")
    assert store.finished() == (earlier, later)
    assert store.find("later") == later == _Thing(tmp_path / "things/later", datetime(2026, 2, 2, tzinfo=UTC), 1)
    assert store.find("none") is None


def test_a_second_build_takes_the_place_of_the_first_and_leaves_nothing_of_it(store: Store[_Written, _Thing]) -> None:
    _publish(store, "key")
    assert _publish(store, "key", 2).weight == 2
    assert (store.path / "key/file").read_text() == "2"
    assert [path.name for path in store.path.iterdir()] == ["key"]


def test_a_damaged_manifest_is_told_with_its_place_and_its_hint(store: Store[_Written, _Thing]) -> None:
    _publish(store, "key")
    (store.path / "key/manifest.json").write_text("{}")
    with pytest.raises(NotReady, match="not the manifest of a thing") as caught:
        store.finished()
    assert (caught.value.problems[0].where, caught.value.problems[0].hint) == (
        str(store.path / "key/manifest.json"),
        "make it again",
    )


def test_cleaning_keeps_what_is_named_and_what_is_not_ours(store: Store[_Written, _Thing]) -> None:
    assert store.clean() == 0
    for key in ("kept", "old"):
        _publish(store, key)
    (store.path / "old/manifest.json").write_text("damaged")
    for foreign in (".somebody", "data"):
        (store.path / foreign).mkdir()
    (store.path / ".somebody/manifest.json").write_text("{}")
    (store.path / ".underlay-building-x").mkdir()
    assert store.clean({"kept"}) > 0
    assert sorted(path.name for path in store.path.iterdir()) == [".somebody", "data", "kept"]


def test_what_an_artifact_is_is_on_the_disk_before_it_has_its_name(
    store: Store[_Written, _Thing], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path.name, (store.path / "key").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    _publish(store, "key")
    assert synced[0] == (".manifest.json.new", False)
    assert synced[1][1] is False
    assert synced[2:] == [("things", True)]


def test_who_comes_second_hears_who_is_at_work(tmp_path: Path) -> None:
    def refuse(owner: str) -> None:
        raise NotReady.of("here", f"{owner} is at work")

    @contextmanager
    def both() -> Iterator[None]:
        with locked(tmp_path, pytest.fail), locked(tmp_path, refuse):
            yield

    with pytest.raises(NotReady, match=f"{os.getpid()} is at work"), both():
        pass


def test_a_disk_that_is_too_small_is_named(tmp_path: Path) -> None:
    assert space_problems(tmp_path / "not/yet", 1) == []
    (problem,) = space_problems(tmp_path / "not/yet", 10**18)
    assert problem.where == str(tmp_path)
    assert "UNDERLAY_CACHE_DIR" in problem.hint


def test_only_what_carries_our_mark_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not carry the mark"):
        remove_tree(tmp_path)


def test_mounts_are_found_innermost_first() -> None:
    info = rb"""1 0 8:1 / / rw - ext4 /dev/vda rw
2 1 0:5 / /c/a\040b/rootfs/proc rw - proc proc rw
3 1 0:5 / /c/a\040b/rootfs/proc/sys rw - proc proc rw
4 1 0:5 / /c/a\040b-other rw - tmpfs tmpfs rw
"""
    assert mounts_below(Path("/c/a b"), parse(info)) == (
        Path("/c/a b/rootfs/proc/sys"),
        Path("/c/a b/rootfs/proc"),
    )


def test_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("UNDERLAY_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_directory() == Path("/home/somebody/.cache/underlay")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/somebody")
    assert cache_directory() == Path("/var/cache/somebody/underlay")
    monkeypatch.setenv("UNDERLAY_CACHE_DIR", str(tmp_path))
    assert cache_directory() == tmp_path
