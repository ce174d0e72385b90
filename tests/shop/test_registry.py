from __future__ import annotations

from pathlib import Path

import pytest

from tests.shop.stored import CREATED, Filled, configuration
from underlay.errors import NotReady
from underlay.shop import build
from underlay.shop.parts import IMAGES
from underlay.shop.registry import Registry

_GATEWAY, *_OTHERS = IMAGES
_FILES = {"./opt/shop/a": (b"abc", 0o644), "usr/bin/b": (b"12345", 0o755)}


def test_an_image_is_read(tmp_path: Path) -> None:
    digest = Filled(tmp_path).add("underlay/gateway", "t", configuration(_GATEWAY), [_FILES, {}])
    registry = Registry(tmp_path)
    stored = registry.image("underlay/gateway", "t")
    assert stored.digest == digest
    assert stored.configuration.user == "10001:10001"
    assert stored.configuration.healthcheck == ("CMD", "true")
    assert stored.configuration.created == CREATED
    first, second = (registry.layer(layer) for layer, _ in stored.layers)
    assert [(entry.path, entry.size) for entry in first.entries] == [("opt/shop/a", 3), ("usr/bin/b", 5)]
    assert (first.size_bytes, second.size_bytes) == (8, 0)
    assert first.packed_bytes == stored.layers[0][1] == registry.blob(first.digest).stat().st_size


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"config": {"digest": "sha256:00"}, "layers": []}'])
def test_a_damaged_image_is_told(tmp_path: Path, content: str) -> None:
    digest = Filled(tmp_path).add("underlay/gateway", "t", {}, [])
    Registry(tmp_path).blob(digest).write_text(content)
    with pytest.raises(NotReady, match="underlay/gateway:t: the registry has no such image, or a damaged one"):
        Registry(tmp_path).image("underlay/gateway", "t")


def test_only_what_is_wanted_is_taken(tmp_path: Path) -> None:
    filled = Filled(tmp_path / "all")
    wanted = filled.add("underlay/gateway", "t", configuration(_GATEWAY), [_FILES])
    other = filled.add("underlay/base-python", "t", {"config": {}}, [{"only/there": (b"x", 0o644)}])
    Registry(tmp_path / "all").take({"underlay/gateway"}, "t", tmp_path / "some")
    taken = Registry(tmp_path / "some")
    assert taken.image("underlay/gateway", "t").digest == wanted
    assert not taken.blob(other).exists()
    assert len(list((tmp_path / "some").rglob("data"))) == 3  # manifest, configuration, layer
    assert list((tmp_path / "some").rglob("_uploads")) == []
    assert len(list((tmp_path / "all").rglob("data"))) == 6


def test_good_images_pass(tmp_path: Path) -> None:
    filled = Filled(tmp_path)
    digests = [filled.add(image.repository, "t", configuration(image), [_FILES, {}]) for image in IMAGES]
    found = build.inspect(Registry(tmp_path), "t")
    assert [image.digest for image in found] == digests
    assert {image.size_bytes for image in found} == {8}


def test_everything_wrong_with_all_of_them_is_said_at_once(tmp_path: Path) -> None:
    filled = Filled(tmp_path)
    filled.add(_GATEWAY.repository, "t", {**configuration(_GATEWAY), "config": {}}, [_FILES])
    for image in _OTHERS:
        filled.add(image.repository, "t", configuration(image), [{"usr/bin/gcc-14": (b"", 0o755)}])
    with pytest.raises(NotReady) as caught:
        build.inspect(Registry(tmp_path), "t")
    said = [str(problem) for problem in caught.value.problems]
    assert sum("a compiler is in it: usr/bin/gcc-14" in text for text in said) == len(_OTHERS)
    assert any("gateway: it runs as root, expected 10001:10001" in text for text in said)
    assert any("gateway: it has no health check" in text for text in said)
