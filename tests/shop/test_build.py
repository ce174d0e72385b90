from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from underlay.errors import NotReady
from underlay.progress import Quiet
from underlay.repository import REPOSITORY
from underlay.shop import build
from underlay.shop.recipe import BASE_DOCKERFILE, context_files, shop_key, supplies_key
from underlay.shop.store import (
    SHOP,
    Layer,
    ShopImage,
    ShopManifest,
    ShopStore,
    Supplies,
    SuppliesManifest,
    SuppliesStore,
    registry_of,
)

_LAYERS = (Layer("sha256:1", 10, 30), Layer("sha256:2", 1, 3))
_IMAGE = ShopImage("gateway", "underlay/gateway", "sha256:0", "10001:10001", _LAYERS)
_CREATED = "2026-01-02T03:04:05+00:00"


def _manifest(key: str) -> ShopManifest:
    return ShopManifest(key, "host", "wares", (_IMAGE,), 11, 1.5, _CREATED)


def _publish(cache: Path, key: str) -> None:
    store = ShopStore(cache)
    with store.workplace(key) as place:
        registry_of(place).mkdir()
        store.publish(place, key, _manifest(key))


def test_images_come_back_as_they_were_written(tmp_path: Path) -> None:
    _publish(tmp_path, "aaaa")
    (shop,) = build.list_shops(cache=tmp_path)
    assert shop.images == (_IMAGE,)
    assert (shop.key, shop.image_key, shop.supplies, shop.built.year) == ("aaaa", "host", "wares", 2026)
    assert shop.registry.is_dir()
    assert (shop.image("gateway").size_bytes, shop.image("gateway").packed_bytes) == (33, 11)
    with pytest.raises(KeyError):
        shop.image("nobody")


@pytest.mark.parametrize("text", ["{}", "[]", '{"key": 1}', _manifest("a").text().replace('"layers": [', '"l": [')])
def test_a_damaged_manifest_is_told(text: str) -> None:
    with pytest.raises(NotReady, match="not the manifest of the shop's images"):
        SHOP.read(Path("x"), text)


def test_images_that_are_there_are_not_built(tmp_path: Path) -> None:
    _publish(tmp_path, shop_key(REPOSITORY))
    assert build.build_shop(progress=Quiet(), cache=tmp_path).images == (_IMAGE,)
    assert build.find_shop(cache=tmp_path) is not None


def test_what_was_not_built_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="they have not been built"):
        build.verify_shop(progress=Quiet(), cache=tmp_path)


def test_cleaning_keeps_what_the_checkout_describes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[Path | None] = []
    monkeypatch.setattr(build, "clear_away", cleared.append)
    for key in ("old", shop_key(REPOSITORY)):
        _publish(tmp_path, key)
    supplies = SuppliesStore(tmp_path)
    for key in ("old", supplies_key(REPOSITORY)):
        with supplies.workplace(key) as place:
            supplies.publish(place, key, SuppliesManifest(key, 1, 1.0, _CREATED))
    assert build.clean_shop(keep=True, cache=tmp_path) > 0
    assert [shop.key for shop in build.list_shops(cache=tmp_path)] == [shop_key(REPOSITORY)]
    assert [one.key for one in supplies.finished()] == [supplies_key(REPOSITORY)]
    build.clean_shop(keep=False, cache=tmp_path)
    assert build.list_shops(cache=tmp_path) == ()
    assert supplies.finished() == ()
    assert cleared == [tmp_path, tmp_path]


def test_cleaning_where_nothing_is_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "clear_away", lambda cache: pytest.fail("there is nothing to clear away"))
    assert build.clean_shop(keep=False, cache=tmp_path) == 0


def test_the_workshop_sees_the_recipe_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "supplies"
    for name in ("trees", "wheels"):
        (path / name).mkdir(parents=True)
    (path / "trees/python.tar").write_text("")
    supplies = Supplies("k", path, 0, datetime.now(tz=UTC))
    materials = tmp_path / "materials"
    build.lay_out(materials, supplies, REPOSITORY)
    seen = {path.relative_to(materials / "context") for path in (materials / "context").rglob("*") if path.is_file()}
    assert seen == {*context_files(REPOSITORY), BASE_DOCKERFILE}
    modes = {path.stat().st_mode & 0o777 for path in materials.rglob("*") if path.is_file()}
    assert modes == {0o644}
    assert (materials / "trees/python.tar").exists()


def test_a_manifest_says_all_of_an_image() -> None:
    assert asdict(_manifest("a"))["images"][0]["layers"][1] == {
        "digest": "sha256:2",
        "packed_bytes": 1,
        "size_bytes": 3,
    }
