"""What `./lab image` shows of the shop's images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from underlay.artifacts import CACHE_VARIABLE
from underlay.cli.main import main
from underlay.image.recipe import image_key
from underlay.image.store import ImageStore, Manifest
from underlay.repository import REPOSITORY
from underlay.shop import shop_key
from underlay.shop.store import Layer, ShopImage, ShopManifest, ShopStore

_CREATED = "2026-01-02T03:04:05+00:00"
_LAYERS = (Layer("sha256:1", 27_000_000, 62_700_000), Layer("sha256:2", 60_000, 138_800))
_IMAGE = ShopImage("gateway", "underlay/gateway", f"sha256:{'0123456789abcdef' * 4}", "10001:10001", _LAYERS)


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cache with the checkout's image and the shop's; gives the shop's key."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    images, shops = ImageStore(tmp_path), ShopStore(tmp_path)
    image, shop = image_key(REPOSITORY), shop_key(REPOSITORY)
    with images.workplace("x") as place:
        images.publish(place, image, Manifest(image, "00ff", "trixie", "amd64", 1, 3, 1.5, _CREATED))
    with shops.workplace("x") as place:
        shops.publish(place, shop, ShopManifest(shop, image, "wares", (_IMAGE,), 11, 1.5, _CREATED))
    return shop


def test_sizes_and_layers_are_listed(
    built: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["image", "list"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"shop {built} (current), built 2026-01-02 03:04 UTC" in said
    assert "│ gateway │ 62.8 MB │ 27.1 MB │ 62.7 MB, 138.8 kB │ 0123456789ab │" in said


def test_and_in_json_with_the_whole_digest(built: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", "list", "--json"]) == 0
    ((shop,),) = [item["shops"] for item in json.loads(capsys.readouterr().out)]
    assert (shop["key"], shop["current"]) == (built, True)
    (image,) = shop["images"]
    assert (image["digest"], image["size_bytes"]) == (_IMAGE.digest, 62_838_800)
    assert [layer["packed_bytes"] for layer in image["layers"]] == [27_000_000, 60_000]


def test_images_that_are_there_are_only_named(
    built: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underlay.packages.install_missing", lambda *_: None)
    assert main(["image", "shop"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["gateway", "62.8", "MB", f"underlay/gateway@{_IMAGE.digest}"]
    assert said[-1].endswith(f"shop/{built}/registry")
