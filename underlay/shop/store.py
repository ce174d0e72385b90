"""Where the shop's images lie, and what they need from the network.

    <cache>/supplies/<key>/trees/NAME.tar    a base's tree
    <cache>/supplies/<key>/wheels/           pinned Python packages
    <cache>/supplies/<key>/packages.lock     the exact versions of the Debian packages
    <cache>/shop/<key>/registry/             a registry's directory: docker-registry serves it as it is
    <cache>/shop/<key>/manifest.json         the images, by digest

Both lie beside the hosts' images, and whoever builds or removes any of them has the images' lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from underlay import artifacts
from underlay.shop.recipe import TREES, WHEELS

_LOCK = "packages.lock"
_REGISTRY = "registry"


@dataclass(frozen=True, slots=True)
class Supplies:
    """What came over the network, ready to build from."""

    key: str
    path: Path
    size_bytes: int
    built: datetime

    @property
    def trees(self) -> Path:
        """The bases' packed trees."""
        return self.path / TREES

    @property
    def wheels(self) -> Path:
        """Python packages."""
        return self.path / WHEELS

    @property
    def lock(self) -> Path:
        """The file of the exact versions of all Debian packages."""
        return self.path / _LOCK


@dataclass(frozen=True, slots=True)
class SuppliesManifest(artifacts.Manifest):
    """What is written beside supplies. ``created`` is UTC in ISO 8601."""

    key: str
    size_bytes: int
    build_seconds: float
    created: str


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image: what it is, bytes that a pull moves, bytes of the files in it."""

    digest: str
    packed_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ShopImage:
    """One image: its name in a registry, the digest that it is pulled by, its layers, the lowest first."""

    name: str
    repository: str
    digest: str
    user: str
    layers: tuple[Layer, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes as `docker image inspect` says them on a host: those of the files of all its layers."""
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def packed_bytes(self) -> int:
        """Bytes that a pull moves when nothing of it is there."""
        return sum(layer.packed_bytes for layer in self.layers)


@dataclass(frozen=True, slots=True)
class ShopManifest(artifacts.Manifest):
    """What is written beside the shop's images. ``created`` is UTC in ISO 8601."""

    key: str
    image_key: str
    supplies: str
    images: tuple[ShopImage, ...]
    size_bytes: int
    build_seconds: float
    created: str


@dataclass(frozen=True, slots=True)
class ShopImages:
    """The shop's images, all of one build.

    ``image_key`` names the hosts' image whose programs built them, ``supplies`` what they were made from.
    """

    key: str
    path: Path
    image_key: str
    supplies: str
    images: tuple[ShopImage, ...]
    size_bytes: int
    built: datetime

    @property
    def registry(self) -> Path:
        """The directory that a registry serves (storage.filesystem.rootdirectory)."""
        return self.path / _REGISTRY

    def image(self, name: str) -> ShopImage:
        """Return the image of that name; KeyError if there is none."""
        for image in self.images:
            if image.name == name:
                return image
        raise KeyError(name)


def _supplies(path: Path, manifest: SuppliesManifest) -> Supplies:
    return Supplies(path.name, path, manifest.size_bytes, datetime.fromisoformat(manifest.created))


def _shop(path: Path, manifest: ShopManifest) -> ShopImages:
    images = tuple(_image(image) for image in manifest.images)
    built = datetime.fromisoformat(manifest.created)
    return ShopImages(path.name, path, manifest.image_key, manifest.supplies, images, manifest.size_bytes, built)


def _image(said: ShopImage | Mapping[str, object]) -> ShopImage:
    """Return an image as it stands in a manifest, where JSON knows no types of ours."""
    if isinstance(said, ShopImage):
        return said
    layers = said.get("layers")
    if not isinstance(layers, list):
        raise TypeError("an image without a list of layers")
    return ShopImage(
        name=_word(said, "name"),
        repository=_word(said, "repository"),
        digest=_word(said, "digest"),
        user=_word(said, "user"),
        layers=tuple(Layer(**layer) for layer in layers),
    )


def _word(said: Mapping[str, object], name: str) -> str:
    word = said.get(name)
    if not isinstance(word, str):
        raise TypeError(f"an image without {name}")
    return word


_CLOSED = ("it is in the cache of another user, and this one may not read it", "run it again with sudo")
SUPPLIES = artifacts.Kind(
    folder="supplies",
    name="supplies of the shop's images",
    manifest=SuppliesManifest,
    make=_supplies,
    again="remove them: ./lab image clean --all; then build again: ./lab image shop",
    closed=_CLOSED,
)
SHOP = artifacts.Kind(
    folder="shop",
    name="the shop's images",
    manifest=ShopManifest,
    make=_shop,
    again="remove them: ./lab image clean; then build them again: ./lab image shop",
    closed=_CLOSED,
)


class SuppliesStore(artifacts.Store[SuppliesManifest, Supplies]):
    """The supplies below one cache directory. What changes it needs the lock of the image store."""

    def __init__(self, cache: Path | None = None) -> None:
        super().__init__(SUPPLIES, cache)


class ShopStore(artifacts.Store[ShopManifest, ShopImages]):
    """The shop's images below one cache directory. What changes it needs the lock of the image store."""

    def __init__(self, cache: Path | None = None) -> None:
        super().__init__(SHOP, cache)


def registry_of(place: Path) -> Path:
    """Return where in a directory the registry's is expected."""
    return place / _REGISTRY


def lock_of(place: Path) -> Path:
    """Return where in a directory the exact versions are expected."""
    return place / _LOCK
