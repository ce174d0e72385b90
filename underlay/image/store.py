"""Where finished images lie: one directory an image, named by its key, that appears only when it is complete.

    <cache>/images/<key>/rootfs/         the tree
    <cache>/images/<key>/manifest.json   what it is
    <cache>/images/<key>/packages.lock   the exact package versions
    <cache>/images/<key>/tree.txt        every file of the tree
    <cache>/images/<key>/users/<lab>     a running lab that uses it: the path of that lab's state

Names that begin with the mark below are unfinished or on their way out; the next build or clean removes them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from underlay.errors import NotReady, Problem
from underlay.process import run

#: Names another cache directory than ``$XDG_CACHE_HOME/underlay``.
CACHE_VARIABLE = "UNDERLAY_CACHE_DIR"
#: Begins the name of every directory that is not a finished image or box.
_MARK = ".underlay-"
BUILDING = f"{_MARK}building-"
REMOVING = f"{_MARK}removing-"
_LOCK = f"{_MARK}lock"

_ROOTFS = "rootfs"
_MANIFEST = "manifest.json"
_PACKAGES = "packages.lock"
_TREE = "tree.txt"
_USERS = "users"

#: Seconds for one umount.
_UMOUNT_TIMEOUT = 30.0
#: How often to begin again when a dying process still wrote into a directory that is being removed.
_REMOVE_ATTEMPTS = 5


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
class Manifest:
    """What is written beside an image's tree. ``created`` is UTC in ISO 8601."""

    key: str
    sha256: str
    suite: str
    arch: str
    source_date_epoch: int
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
            datetime.fromisoformat(manifest.created)
        except (TypeError, ValueError) as error:
            raise NotReady(
                Problem(where, f"not the manifest of an image: {error}", "build it again: ./lab image build --force")
            ) from error
        return manifest


@dataclass(frozen=True, slots=True)
class Workplace:
    """A directory in which an image is being built."""

    path: Path

    @property
    def rootfs(self) -> Path:
        """Where the tree grows."""
        return self.path / _ROOTFS

    def write(self, manifest: Manifest, packages: str, tree: str) -> None:
        """Write what lies beside the tree, and wait until all of it, the tree included, is on the disk."""
        (self.path / _USERS).mkdir()
        (self.path / _PACKAGES).write_text(packages)
        (self.path / _TREE).write_text(tree)
        (self.path / _MANIFEST).write_text(manifest.text())


class ImageStore:
    """The images below one cache directory."""

    def __init__(self, cache: Path | None = None) -> None:
        self.path = (cache or cache_directory()) / "images"

    def find(self, key: str) -> Image | None:
        """Return the finished image of that key, or None."""
        path = self.path / key
        try:
            text = (path / _MANIFEST).read_text()
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise _forbidden(path) from error
        manifest = Manifest.parse(text, str(path / _MANIFEST))
        built = datetime.fromisoformat(manifest.created)
        return Image(key, path, path / _ROOTFS, manifest.sha256, built, manifest.size_bytes)

    def images(self) -> tuple[Image, ...]:
        """Return all finished images, the oldest first."""
        try:
            names = [path.name for path in self.path.iterdir() if not path.name.startswith(".")]
        except FileNotFoundError:
            return ()
        except PermissionError as error:
            raise _forbidden(self.path) from error
        found = (self.find(name) for name in names)
        return tuple(sorted((image for image in found if image is not None), key=lambda image: image.built))

    @contextmanager
    def locked(self, waiting: Callable[[str], None]) -> Iterator[None]:
        """Be the only one who builds or removes images; ``waiting`` hears who is, when that is somebody else."""
        self.path.mkdir(parents=True, exist_ok=True)
        # Images hold set-user-ID programs that may be older than the machine's own: not for its other users.
        self.path.chmod(0o700)
        with (self.path / _LOCK).open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                waiting(stream.read().strip() or "unknown")
                fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            stream.truncate()
            stream.write(f"{os.getpid()}\n")
            stream.flush()
            yield

    @contextmanager
    def workplace(self, key: str) -> Iterator[Workplace]:
        """Make a directory to build in, and remove it in the end unless it was published. Needs the lock."""
        path = Path(tempfile.mkdtemp(prefix=f"{BUILDING}{key}-", dir=self.path))
        try:
            yield Workplace(path)
        finally:
            if path.exists():
                remove_tree(path)

    def publish(self, place: Workplace, key: str) -> Image:
        """Turn a complete build into the image of that key, in one step that either happened or did not."""
        place.path.chmod(0o755)
        final = self.path / key
        if final.exists():
            self._set_aside(final)
        place.path.rename(final)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        image = self.find(key)
        if image is None:
            raise NotReady(Problem(str(final), "the image vanished as it was finished", "build it again"))
        return image

    def sweep(self) -> int:
        """Remove what unfinished builds and removals left; return the bytes that became free. Needs the lock."""
        freed = 0
        for path in self.path.iterdir():
            if path.name.startswith((BUILDING, REMOVING)):
                freed += remove_tree(path)
        return freed

    def remove(self, image: Image) -> int:
        """Remove an image; return the bytes that became free. Needs the lock. Raises NotReady when it is in use."""
        refuse_in_use((image,))
        return remove_tree(self._set_aside(image.path))

    def _set_aside(self, path: Path) -> Path:
        aside = Path(tempfile.mkdtemp(prefix=REMOVING, dir=self.path)) / path.name
        path.rename(aside)
        return aside.parent


def cache_directory() -> Path:
    """Return the cache directory: ``$UNDERLAY_CACHE_DIR``, or ``underlay`` below the user's cache directory.

    See the XDG Base Directory Specification; a relative ``$XDG_CACHE_HOME`` does not count there.
    """
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "underlay"


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


def mounts_below(folder: Path, mountinfo: str) -> tuple[Path, ...]:
    """Return the mount points at or below a directory, innermost first, from a text like /proc/self/mountinfo."""
    points = (Path(line.split(" ")[4].encode().decode("unicode_escape")) for line in mountinfo.splitlines())
    return tuple(sorted((point for point in points if point.is_relative_to(folder)), reverse=True))


def remove_tree(path: Path) -> int:
    """Remove a directory of the store that carries our mark, mounts below it first; return the bytes freed."""
    if not path.name.startswith(_MARK):
        raise ValueError(f"{path} does not carry the mark of what may be removed")
    # Removing through a mount would reach what is mounted there: the machine's own /dev, at worst.
    for point in mounts_below(path.resolve(), Path("/proc/self/mountinfo").read_text()):
        run(("umount", "--lazy", str(point)), timeout=_UMOUNT_TIMEOUT, where=str(path))
    freed = sum(status.st_blocks * 512 for status in _statuses(path))
    for attempt in range(1, _REMOVE_ATTEMPTS + 1):
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            break
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or attempt == _REMOVE_ATTEMPTS:
                raise
        else:
            break
    return freed


def _statuses(folder: Path) -> Iterator[os.stat_result]:
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            try:
                yield Path(parent, name).lstat()
            except FileNotFoundError:
                continue


def _alive(mark: Path) -> bool:
    try:
        return Path(mark.read_text().strip()).exists()
    except FileNotFoundError:
        return False


def _forbidden(path: Path) -> NotReady:
    return NotReady(Problem(str(path), "images are root's, and this user may not read them", "run it again with sudo"))
