"""Where finished boxes lie: one directory a box, that appears only when it is complete.

    <cache>/boxes/<image key>-<provider>-<key>/underlay.box     what Vagrant adds
    <cache>/boxes/<image key>-<provider>-<key>/manifest.json    what it is
    <cache>/boxes/<image key>-<provider>-<key>/catalogue.json   the same for Vagrant: name, version, address

They lie beside the images and under the same lock, but are open to other users: Vagrant need not run as root.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from underlay.errors import NotReady, Problem
from underlay.image.store import BUILDING, REMOVING, cache_directory, remove_tree

_MANIFEST = "manifest.json"
_BOX = "underlay.box"
_CATALOGUE = "catalogue.json"


class Provider(StrEnum):
    """What runs a box, in Vagrant's words."""

    LIBVIRT = "libvirt"
    VIRTUALBOX = "virtualbox"


@dataclass(frozen=True, slots=True)
class Manifest:
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

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def parse(cls, text: str, where: str = _MANIFEST) -> Manifest:
        """Return the manifest that such a text holds. Raises NotReady when it is damaged."""
        try:
            manifest = cls(**json.loads(text))
            Provider(manifest.provider)
            datetime.fromisoformat(manifest.created)
        except (TypeError, ValueError) as error:
            raise NotReady(
                Problem(
                    where,
                    f"not the manifest of a box: {error}",
                    "remove it: ./lab image clean; then build it again: ./lab image box",
                )
            ) from error
        return manifest

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


class BoxStore:
    """The boxes below one cache directory. What writes needs the lock of the image store."""

    def __init__(self, cache: Path | None = None) -> None:
        self.path = (cache or cache_directory()) / "boxes"

    def find(self, folder: str) -> Box | None:
        """Return the finished box of that directory name, or None."""
        path = self.path / folder
        try:
            text = (path / _MANIFEST).read_text()
        except FileNotFoundError:
            return None
        except PermissionError as error:
            what = "boxes are in the cache of another user, and this one may not read it"
            raise NotReady(Problem(str(path), what, "run it with sudo, or set UNDERLAY_CACHE_DIR")) from error
        found = Manifest.parse(text, str(path / _MANIFEST))
        values = {field.name: getattr(found, field.name) for field in fields(Box) if hasattr(found, field.name)}
        values["provider"] = Provider(found.provider)
        return Box(path=path, built=datetime.fromisoformat(found.created), **values)

    def boxes(self) -> tuple[Box, ...]:
        """Return all finished boxes, the oldest first."""
        try:
            names = [path.name for path in self.path.iterdir() if not path.name.startswith(".")]
        except FileNotFoundError:
            return ()
        found = (self.find(name) for name in names)
        return tuple(sorted((box for box in found if box is not None), key=lambda box: box.built))

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """Make a directory to build in, and remove it in the end unless it was published."""
        self.path.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix=BUILDING, dir=self.path))
        try:
            yield path
        finally:
            if path.exists():
                remove_tree(path)

    def publish(self, place: Path, manifest: Manifest, catalogue: str) -> Box:
        """Turn a directory that holds the complete box file into a box, in one step that happened or did not."""
        (place / _CATALOGUE).write_text(catalogue)
        (place / _MANIFEST).write_text(manifest.text())
        for path in place.iterdir():
            path.chmod(0o644)
        place.chmod(0o755)
        final = self.path / manifest.folder
        if final.exists():
            self._discard(final)
        place.rename(final)
        box = self.find(manifest.folder)
        if box is None:
            raise NotReady(Problem(str(final), "the box vanished as it was finished", "build it again"))
        return box

    def sweep(self) -> int:
        """Remove what unfinished builds and removals left; return the bytes that became free."""
        if not self.path.exists():
            return 0
        left = [path for path in self.path.iterdir() if path.name.startswith((BUILDING, REMOVING))]
        return sum(remove_tree(path) for path in left)

    def clean(self, keep: Collection[str]) -> int:
        """Remove unfinished boxes, and all but those of the directory names in ``keep``; return the bytes freed."""
        freed = self.sweep()
        if self.path.exists():
            found = sorted(path.parent for path in self.path.glob(f"*/{_MANIFEST}"))
            freed += sum(self._discard(path) for path in found if path.name not in keep)
        return freed

    def _discard(self, path: Path) -> int:
        aside = Path(tempfile.mkdtemp(prefix=REMOVING, dir=self.path))
        path.rename(aside / path.name)
        return remove_tree(aside)


def folder_name(image_key: str, provider: Provider, key: str) -> str:
    """Return the name of a box's directory."""
    return f"{image_key}-{provider}-{key}"


def box_file(place: Path) -> Path:
    """Return where in a directory the box file is expected."""
    return place / _BOX


def final_file(cache: Path | None, folder: str) -> Path:
    """Return where the file of a box will be once it is published."""
    return box_file(BoxStore(cache).path / folder)
