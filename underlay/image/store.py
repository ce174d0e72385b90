"""Where finished images lie, and which labs use them.

<cache>/images/<key>/rootfs/         the tree
<cache>/images/<key>/manifest.json   what it is
<cache>/images/<key>/packages.lock   the exact package versions
<cache>/images/<key>/tree.txt        every file of the tree
<cache>/images/<key>/users/<lab>     a running lab that uses it: the path of that lab's state
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from underlay import artifacts
from underlay.errors import NotReady, Problem

_ROOTFS = "rootfs"
_PACKAGES = "packages.lock"
_TREE = "tree.txt"
_USERS = "users"


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image. ``sha256`` is that of its tree's list; ``size_bytes`` counts the content of its files."""

    key: str
    path: Path
    rootfs: Path
    sha256: str
    built: datetime
    size_bytes: int

    @property
    def lock(self) -> Path:
        """The file of its exact package versions."""
        return self.path / _PACKAGES

    @property
    def tree(self) -> Path:
        """The list of its files."""
        return self.path / _TREE


@dataclass(frozen=True, slots=True)
class Manifest(artifacts.Manifest):
    """What is written beside an image's tree. ``created`` is UTC in ISO 8601."""

    key: str
    sha256: str
    suite: str
    arch: str
    source_date_epoch: int
    size_bytes: int
    build_seconds: float
    created: str


def _image(path: Path, manifest: Manifest) -> Image:
    built = datetime.fromisoformat(manifest.created)
    return Image(path.name, path, path / _ROOTFS, manifest.sha256, built, manifest.size_bytes)


IMAGES = artifacts.Kind(
    folder="images",
    name="an image",
    manifest=Manifest,
    make=_image,
    again="build it again: ./lab image build --force",
    closed=("images are root's, and this user may not read them", "run it again with sudo"),
)


@dataclass(frozen=True, slots=True)
class Workplace:
    """A directory in which an image is being built."""

    path: Path

    @property
    def rootfs(self) -> Path:
        """Where the tree grows."""
        return self.path / _ROOTFS

    def write(self, packages: str, tree: str) -> None:
        """Write what lies beside the tree."""
        (self.path / _USERS).mkdir()
        (self.path / _PACKAGES).write_text(packages)
        (self.path / _TREE).write_text(tree)


class ImageStore(artifacts.Store[Manifest, Image]):
    """The images below one cache directory."""

    def __init__(self, cache: Path | None = None) -> None:
        super().__init__(IMAGES, cache)

    @contextmanager
    def locked(self, waiting: Callable[[str], None]) -> Iterator[None]:
        """Be the only one who builds or removes images or boxes; ``waiting`` hears who is, if that is somebody else."""
        self.path.mkdir(parents=True, exist_ok=True)
        # Images hold set-user-ID programs that may be older than the machine's own: not for its other users.
        self.path.chmod(0o700)
        with artifacts.locked(self.path, waiting):
            yield


def image_users(image: Image) -> tuple[str, ...]:
    """Return the names of the labs that use an image. A mark whose lab's state is gone does not count."""
    try:
        marks = sorted((image.path / _USERS).iterdir())
    except FileNotFoundError:
        return ()
    return tuple(mark.name for mark in marks if _alive(mark))


def use_image(image: Image, lab: str, state: Path) -> None:
    """Mark an image as used by a lab, for as long as the path ``state`` exists.

    Raises NotReady when the image is being removed at this moment.
    """
    mark = image.path / _USERS / lab
    try:
        mark.write_text(f"{state.absolute()}\n")
    except FileNotFoundError as error:
        raise NotReady(
            Problem(f"image {image.key}", "it has just been removed", "build it: ./lab image build")
        ) from error


def release_image(image: Image, lab: str) -> None:
    """Take a lab's mark from an image. No error if there is none."""
    (image.path / _USERS / lab).unlink(missing_ok=True)


def refuse_in_use(images: Collection[Image]) -> None:
    """Raise NotReady that names every image of these that a lab uses."""
    used = ((image, image_users(image)) for image in images)
    problems = [
        Problem(f"image {image.key}", f"in use by lab {', '.join(labs)}", "bring the lab down first: ./lab down")
        for image, labs in used
        if labs
    ]
    if problems:
        raise NotReady(*problems)


def _alive(mark: Path) -> bool:
    try:
        return Path(mark.read_text().strip()).exists()
    except FileNotFoundError:
        return False
