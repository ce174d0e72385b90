"""What a registry's directory holds, read without the registry: images by digest, and the files of their layers.

https://distribution.github.io/distribution/storage-drivers/filesystem/ and the OCI image specification say how it lies.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from underlay.errors import NotReady, Problem

#: The first bytes of a private key as text (RFC 7468).
_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
#: Bytes of a file in which a key is looked for.
_LOOKED_AT = 100_000

#: What :mod:`json` reads.
Json = Mapping[str, "Json"] | Sequence["Json"] | str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a layer; ``mode`` as for chmod, ``size`` in bytes; ``key`` says that it holds a private key."""

    path: str
    mode: int
    uid: int
    size: int
    directory: bool = False
    link: bool = False
    key: bool = False


@dataclass(frozen=True, slots=True)
class LayerFiles:
    """A layer with all its files."""

    digest: str
    packed_bytes: int
    entries: tuple[Entry, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of its files, as Docker counts them."""
        return sum(entry.size for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Configuration:
    """What an image says of itself."""

    user: str
    environment: tuple[str, ...]
    labels: Mapping[str, str]
    healthcheck: tuple[str, ...]
    created: str


@dataclass(frozen=True, slots=True)
class Stored:
    """An image in a registry: the digest that it is pulled by, what it says of itself (and that text's digest), layers.

    Of these each has a digest, and bytes that a pull moves.
    """

    digest: str
    configured: str
    configuration: Configuration
    layers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Registry:
    """The directory of a registry (storage.filesystem.rootdirectory)."""

    root: Path

    def image(self, repository: str, tag: str) -> Stored:
        """Return an image; NotReady when it is not there, or damaged."""
        place = self._top / "repositories" / repository / "_manifests/tags" / tag / "current/link"
        where = f"{repository}:{tag}"
        try:
            digest = place.read_text().strip()
            manifest = _object(json.loads(self.blob(digest).read_bytes()))
            configured = _text(_object(manifest["config"])["digest"])
            configuration = _object(json.loads(self.blob(configured).read_bytes()))
            layers = [_object(layer) for layer in _list(manifest["layers"])]
            found = tuple((_text(layer["digest"]), int(_text(layer["size"]))) for layer in layers)
            return Stored(digest, configured, _configuration(configuration), found)
        except (OSError, KeyError, TypeError, ValueError) as error:
            what = f"the registry has no such image, or a damaged one: {error}"
            raise NotReady(Problem(where, what, "build it again: ./lab image shop --force")) from error

    def blob(self, digest: str) -> Path:
        """Return the file that holds what has this digest (``sha256:HEX``)."""
        kind, _, number = digest.partition(":")
        return self._top / "blobs" / kind / number[:2] / number / "data"

    def layer(self, digest: str) -> LayerFiles:
        """Return a layer with all its files."""
        blob = self.blob(digest)
        with tarfile.open(blob) as tar:
            return LayerFiles(digest, blob.stat().st_size, tuple(_entries(tar)))

    def take(self, repositories: Collection[str], tag: str, target: Path) -> None:
        """Make ``target`` the directory of a registry that has these images and nothing else; this one must be idle."""
        other = Registry(target)
        for repository in sorted(repositories):
            there = f"repositories/{repository}"
            shutil.copytree(self._top / there, other._top / there, ignore=shutil.ignore_patterns("_uploads"))
            image = self.image(repository, tag)
            for digest in (image.digest, image.configured, *(digest for digest, _ in image.layers)):
                blob = other.blob(digest)
                blob.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.blob(digest), blob)

    @property
    def _top(self) -> Path:
        return self.root / "docker/registry/v2"


def _entries(tar: tarfile.TarFile) -> Iterator[Entry]:
    for member in tar:
        holds_key = False
        if member.isreg() and (file := tar.extractfile(member)) is not None:
            holds_key = _KEY.search(file.read(_LOOKED_AT)) is not None
        yield Entry(
            path=member.name.removeprefix("./").strip("/"),
            mode=member.mode,
            uid=member.uid,
            size=member.size if member.isreg() else 0,
            directory=member.isdir(),
            link=member.issym() or member.islnk(),
            key=holds_key,
        )


def _configuration(said: Mapping[str, Json]) -> Configuration:
    config = _object(said["config"])
    check = _object(config.get("Healthcheck") or {})
    return Configuration(
        user=_text(config.get("User") or ""),
        environment=tuple(_text(word) for word in _list(config.get("Env") or [])),
        labels={name: _text(value) for name, value in _object(config.get("Labels") or {}).items()},
        healthcheck=tuple(_text(word) for word in _list(check.get("Test") or [])),
        created=_text(said.get("created") or ""),
    )


def _object(value: Json) -> Mapping[str, Json]:
    if not isinstance(value, Mapping):
        raise TypeError(f"not an object: {value!r}")
    return value


def _list(value: Json) -> Sequence[Json]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"not a list: {value!r}")
    return value


def _text(value: Json) -> str:
    if not isinstance(value, str | int):
        raise TypeError(f"not a text or number: {value!r}")
    return str(value)
