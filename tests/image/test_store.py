from __future__ import annotations

import json
from pathlib import Path

import pytest

from underlay.errors import InputError, NotReady
from underlay.image import build
from underlay.image.recipe import image_key
from underlay.image.store import (
    IMAGES,
    Image,
    ImageStore,
    Manifest,
    Workplace,
    image_users,
    release_image,
    use_image,
)
from underlay.repository import REPOSITORY

_MANIFEST = Manifest(
    key="aaaa",
    sha256="00ff",
    suite="trixie",
    arch="amd64",
    source_date_epoch=1,
    size_bytes=3,
    build_seconds=1.5,
    created="2026-01-02T03:04:05+00:00",
)


def _no_wait(owner: str) -> None:
    pytest.fail(f"waited for {owner}")


def _publish(store: ImageStore, key: str = "aaaa") -> Image:
    with store.locked(_no_wait), store.workplace(key) as path:
        place = Workplace(path)
        place.rootfs.mkdir()
        (place.rootfs / "file").write_text("abc")
        place.write("less 1 all\n", "")
        return store.publish(path, key, _MANIFEST)


def _fail(store: ImageStore) -> None:
    with store.workplace("aaaa") as path:
        Workplace(path).rootfs.mkdir()
        raise InputError.of("here", "wrong")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", json.dumps({**json.loads(_MANIFEST.text()), "more": 1}), _MANIFEST.text().replace("2026-", "x")],
)
def test_a_damaged_manifest_is_told(text: str) -> None:
    with pytest.raises(NotReady, match="not the manifest of an image"):
        IMAGES.read(Path(), text)


def test_an_image_appears_when_it_is_complete(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    assert store.find("aaaa") is None
    assert store.finished() == ()
    image = _publish(store)
    assert store.find("aaaa") == image
    assert store.finished() == (image,)
    assert (image.sha256, image.size_bytes, image.built.year) == ("00ff", 3, 2026)
    assert (image.rootfs / "file").read_text() == "abc"
    assert image.lock.read_text() == "less 1 all\n"
    assert store.path.stat().st_mode & 0o077 == 0


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    with store.locked(_no_wait), pytest.raises(InputError):
        _fail(store)
    assert [path.name for path in store.path.iterdir()] == [".underlay-lock"]


def test_what_a_killed_build_left_is_no_image_and_is_swept(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    image = _publish(store)
    left = Workplace(store.path / ".underlay-building-bbbb-x")
    left.rootfs.mkdir(parents=True)
    left.write("", "")
    (left.path / "manifest.json").write_text(_MANIFEST.text())  # even when it was killed one step before the end
    foreign = store.path / ".somebody"
    foreign.mkdir()
    assert store.finished() == (image,)
    with store.locked(_no_wait):
        assert store.sweep() > 0
    assert not left.path.exists()
    assert foreign.exists()
    assert image.path.exists()


def test_a_second_build_replaces_the_first_as_a_whole(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    (_publish(store).rootfs / "old").write_text("")
    assert not (_publish(store).rootfs / "old").exists()


def test_a_lab_that_uses_an_image_keeps_it(tmp_path: Path) -> None:
    image = _publish(ImageStore(tmp_path))
    state = tmp_path / "state"
    state.mkdir()
    use_image(image, "underlay", state)
    assert image_users(image) == ("underlay",)
    assert build.used_keys(cache=tmp_path) == ("aaaa",)
    with pytest.raises(NotReady, match="in use by lab underlay"):
        build.clean_images(cache=tmp_path)
    assert image.rootfs.exists()
    assert build.clean_images(keep=("aaaa",), cache=tmp_path) == 0
    release_image(image, "underlay")
    release_image(image, "underlay")
    assert build.clean_images(cache=tmp_path) > 0
    assert not image.path.exists()


@pytest.mark.parametrize("used", ["aaaa", "bbbb"])
def test_one_image_in_use_keeps_all_when_all_are_to_go(tmp_path: Path, used: str) -> None:
    store = ImageStore(tmp_path)
    images = {key: _publish(store, key) for key in ("aaaa", "bbbb")}
    use_image(images[used], "underlay", tmp_path)
    with pytest.raises(NotReady):
        build.clean_images(cache=tmp_path)
    assert {image.key for image in store.finished()} == images.keys()


def test_the_mark_of_a_lab_that_is_gone_is_stale(tmp_path: Path) -> None:
    image = _publish(ImageStore(tmp_path))
    use_image(image, "underlay", tmp_path / "state that never was")
    assert image_users(image) == ()
    assert build.clean_images(cache=tmp_path) > 0


def test_an_image_that_was_just_removed_cannot_be_used(tmp_path: Path) -> None:
    image = _publish(ImageStore(tmp_path))
    build.clean_images(cache=tmp_path)
    with pytest.raises(NotReady, match="just been removed"):
        use_image(image, "underlay", tmp_path)


def test_cleaning_does_not_wait_for_a_build(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    with store.locked(_no_wait), pytest.raises(NotReady, match=r"being built \(process \d+\)"):
        build.clean_images(cache=tmp_path)


def test_cleaning_where_nothing_is(tmp_path: Path) -> None:
    assert build.clean_images(cache=tmp_path / "none") == 0


def test_the_image_of_a_checkout_is_found_by_its_key(tmp_path: Path) -> None:
    key = image_key(REPOSITORY)
    assert build.find_image(cache=tmp_path) is None
    assert build.find_image(cache=tmp_path) != _publish(ImageStore(tmp_path), key)
    found = build.find_image(cache=tmp_path)
    assert found is not None
    assert found.key == key
