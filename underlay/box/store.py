"""Where finished boxes lie.

    <cache>/boxes/<image key>-<provider>-<key>/underlay.box     what Vagrant adds
    <cache>/boxes/<image key>-<provider>-<key>/manifest.json    what it is
    <cache>/boxes/<image key>-<provider>-<key>/catalogue.json   the same for Vagrant: name, version, address

They lie beside the images and under the same lock, but are open to other users: Vagrant need not run as root.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from underlay import artifacts, durable

_BOX = "underlay.box"
_CATALOGUE = "catalogue.json"


class Provider(StrEnum):
    """What runs a box, in Vagrant's words."""

    LIBVIRT = "libvirt"
    VIRTUALBOX = "virtualbox"


@dataclass(frozen=True, slots=True)
class Manifest(artifacts.Manifest):
    """What is written beside a box. ``created`` is UTC in ISO 8601; ``sha256`` is that of the box file."""

    provider: str
    key: str
    image_key: str
    image_sha256: str
    version: str
    sha256: str
    size_bytes: int
    build_seconds: float
    created: str

    @property
    def folder(self) -> str:
        """The name of the box's directory."""
        return folder_name(self.image_key, Provider(self.provider), self.key)


@dataclass(frozen=True, slots=True)
class Box:
    """A finished box. ``key`` names its recipe, ``image_sha256`` what it was made from.

    ``version`` is Vagrant's and grows with every build.
    """

    path: Path
    provider: Provider
    key: str
    image_key: str
    image_sha256: str
    version: str
    sha256: str
    size_bytes: int
    built: datetime

    @property
    def file(self) -> Path:
        """The file that ``vagrant box add`` reads; without a version when added directly."""
        return self.path / _BOX

    @property
    def catalogue(self) -> Path:
        """The file to give to ``vagrant box add``: it holds name, version and checksum, and the box's address."""
        return self.path / _CATALOGUE


def _box(path: Path, manifest: Manifest) -> Box:
    values = {field.name: getattr(manifest, field.name) for field in fields(Box) if hasattr(manifest, field.name)}
    values["provider"] = Provider(manifest.provider)
    return Box(path=path, built=datetime.fromisoformat(manifest.created), **values)


BOXES = artifacts.Kind(
    folder="boxes",
    name="a box",
    manifest=Manifest,
    make=_box,
    again="remove it: ./lab image clean; then build it again: ./lab image box",
    closed=(
        "boxes are in the cache of another user, and this one may not read it",
        f"run it with sudo, or set {artifacts.CACHE_VARIABLE}",
    ),
)


class BoxStore(artifacts.Store[Manifest, Box]):
    """The boxes below one cache directory. What changes it needs the lock of the image store."""

    def __init__(self, cache: Path | None = None) -> None:
        super().__init__(BOXES, cache)

    def add(self, place: Path, manifest: Manifest, catalogue: str) -> Box:
        """Turn a directory that holds the complete box file into a box, in one step that happened or did not."""
        durable.replace(place / _CATALOGUE, catalogue)
        box_file(place).chmod(0o644)
        return self.publish(place, manifest.folder, manifest)


def folder_name(image_key: str, provider: Provider, key: str) -> str:
    """Return the name of a box's directory."""
    return f"{image_key}-{provider}-{key}"


def box_file(place: Path) -> Path:
    """Return where in a directory the box file is expected."""
    return place / _BOX


def final_file(cache: Path | None, folder: str) -> Path:
    """Return where the file of a box will be once it is published."""
    return box_file(BoxStore(cache).path / folder)
