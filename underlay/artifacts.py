"""What is built once and kept: one directory for each, named by its key, that appears only when it is complete.

    <cache>/<kind>/<key>/manifest.json   what it is
    <cache>/<kind>/<key>/...             whatever else belongs to its kind

Names that begin with the mark below are unfinished or on their way out; the next build or clean removes them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from underlay import durable, mountinfo
from underlay.errors import NotReady, Problem
from underlay.mountinfo import Mount
from underlay.process import run

#: Names another cache directory than ``$XDG_CACHE_HOME/underlay``.
CACHE_VARIABLE = "UNDERLAY_CACHE_DIR"
#: Begins the name of every directory that is not a finished artifact.
_MARK = ".underlay-"
_BUILDING = f"{_MARK}building-"
_REMOVING = f"{_MARK}removing-"
_LOCK = f"{_MARK}lock"
_MANIFEST = "manifest.json"

#: Seconds for one umount.
_UMOUNT_TIMEOUT = 30.0
#: How often to begin again when a dying process still wrote into a directory that is being removed.
_REMOVE_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is written beside an artifact; each kind has fields of its own."""

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"


class Artifact(Protocol):
    """What a finished artifact of any kind can say."""

    @property
    def built(self) -> datetime:
        """When it was built (UTC)."""


Written = TypeVar("Written", bound=Manifest)
Made = TypeVar("Made", bound=Artifact)


@dataclass(frozen=True, slots=True)
class Kind(Generic[Written, Made]):
    """A kind of artifact: the name of its folder, how it is called ("an image"), and how it is read.

    ``make`` turns a directory and its manifest into the artifact; TypeError or ValueError say that the manifest is
    damaged. ``again`` is the hint that brings a new one; ``closed`` says why it may not be read, and what to do then.
    """

    folder: str
    name: str
    manifest: type[Written]
    make: Callable[[Path, Written], Made]
    again: str
    closed: tuple[str, str]

    def read(self, path: Path, text: str) -> Made:
        """Return the artifact in the directory ``path`` whose manifest this is; NotReady when it is damaged."""
        try:
            return self.make(path, self.manifest(**json.loads(text)))
        except (TypeError, ValueError) as error:
            what = f"not the manifest of {self.name}: {error}"
            raise NotReady(Problem(str(path / _MANIFEST), what, self.again)) from error


class Store(Generic[Written, Made]):
    """The artifacts of one kind below one cache directory. What changes it needs the caller's lock."""

    def __init__(self, kind: Kind[Written, Made], cache: Path | None = None) -> None:
        self._kind = kind
        self.path = (cache or cache_directory()) / kind.folder

    def find(self, key: str) -> Made | None:
        """Return the finished artifact of that key, or None; NotReady when it is damaged or not for this user."""
        path = self.path / key
        try:
            text = (path / _MANIFEST).read_text()
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise self._closed(path) from error
        return self._kind.read(path, text)

    def finished(self) -> tuple[Made, ...]:
        """Return all finished artifacts, the oldest first."""
        try:
            names = [path.name for path in self.path.iterdir() if not path.name.startswith(".")]
        except FileNotFoundError:
            return ()
        except PermissionError as error:
            raise self._closed(self.path) from error
        found = (self.find(name) for name in names)
        return tuple(sorted((one for one in found if one is not None), key=lambda one: one.built))

    @contextmanager
    def workplace(self, name: str) -> Iterator[Path]:
        """Make a directory to build in (``name`` is for people), and remove it in the end unless it was published."""
        self.path.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix=f"{_BUILDING}{name}-", dir=self.path))
        try:
            yield path
        finally:
            if path.exists():
                remove_tree(path)

    def publish(self, place: Path, key: str, manifest: Written) -> Made:
        """Turn a complete build into the artifact of that key, in one step that either happened or did not.

        The caller has made sure that all else in ``place`` is on the disk.
        """
        durable.replace(place / _MANIFEST, manifest.text())
        place.chmod(0o755)
        final = self.path / key
        old = self._set_aside(final) if final.exists() else None
        place.rename(final)
        durable.keep_names(self.path)
        if old is not None:
            remove_tree(old)
        made = self.find(key)
        if made is None:
            raise NotReady(Problem(str(final), f"{self._kind.name} vanished as it was finished", "build it again"))
        return made

    def sweep(self) -> int:
        """Remove what unfinished builds and removals left; return the bytes that became free."""
        if not self.path.exists():
            return 0
        left = [path for path in self.path.iterdir() if path.name.startswith((_BUILDING, _REMOVING))]
        return sum(remove_tree(path) for path in left)

    def clean(self, keep: Collection[str] = ()) -> int:
        """Remove what is unfinished, and all but the artifacts of the keys in ``keep``; return the bytes freed."""
        freed = self.sweep()
        names = sorted(path.parent.name for path in self.path.glob(f"*/{_MANIFEST}"))
        unwanted = [self.path / name for name in names if name not in keep and not name.startswith(".")]
        return freed + sum(remove_tree(self._set_aside(path)) for path in unwanted)

    def _set_aside(self, path: Path) -> Path:
        aside = Path(tempfile.mkdtemp(prefix=_REMOVING, dir=self.path))
        path.rename(aside / path.name)
        return aside

    def _closed(self, path: Path) -> NotReady:
        return NotReady(Problem(str(path), *self._kind.closed))


def cache_directory() -> Path:
    """Return the cache directory: ``$UNDERLAY_CACHE_DIR``, or ``underlay`` below the user's cache directory.

    See the XDG Base Directory Specification; a relative ``$XDG_CACHE_HOME`` does not count there.
    """
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "underlay"


@contextmanager
def locked(directory: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Be the only one who changes what is in a directory; ``waiting`` hears who is, when that is somebody else."""
    with (directory / _LOCK).open("a+") as stream:
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


def refuse_to_wait(owner: str) -> None:
    """Raise NotReady that names who is at work: for who has locked() tell them, and would rather not wait."""
    what = f"an image or box is being built (process {owner})"
    raise NotReady(Problem("image", what, "wait for its end, then try again"))


def space_problems(directory: Path, needed: int) -> list[Problem]:
    """Say if the disk that a directory is on, or will be, has fewer than ``needed`` bytes left."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free >= needed:
        return []
    what = f"{free / 1e9:.1f} GB are free, a build needs {needed / 1e9:.1f} GB"
    return [Problem(str(existing), what, f"make room, or set {CACHE_VARIABLE} to another disk")]


def mounts_below(folder: Path, mounts: Sequence[Mount]) -> tuple[Path, ...]:
    """Return which of these mounts are at or below a directory, innermost first."""
    return tuple(sorted((mount.point for mount in mounts if mount.point.is_relative_to(folder)), reverse=True))


def remove_tree(path: Path) -> int:
    """Remove a directory of a store that carries our mark, mounts below it first; return the bytes freed."""
    if not path.name.startswith(_MARK):
        raise ValueError(f"{path} does not carry the mark of what may be removed")
    # Removing through a mount would reach what is mounted there: the machine's own /dev, at worst.
    for point in mounts_below(path.resolve(), mountinfo.mounts()):
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
