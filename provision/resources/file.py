"""Files and directories.

What lies below our own directories is ours; a file elsewhere is ours if one of its first lines says so.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from provision.marks import Mark
from provision.resource import Command, Found, Resource, Step, Write
from provision.resources.user import belonging_to
from provision.system import NotOurs, System
from underlay import durable

#: Directories of others, in which we put single, marked files, each in a directory for it alone: ip-netns(8), and
#: https://docs.docker.com/engine/security/certificates/.
_NETNS, _CERTIFICATES = Path("/etc/netns"), Path("/etc/docker/certs.d")
#: Bytes at the head of a file in which its mark stands.
_HEAD = 512


@dataclass(frozen=True, slots=True)
class Directory(Resource):
    """A directory below one of our own."""

    path: Path
    mode: int = 0o755
    owner: str = "root"

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"directory {self.path}"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return belonging_to(self.owner)

    @property
    def batched(self) -> bool:
        """See Resource."""
        return True

    def observe(self, system: System) -> str | None:
        """See Resource."""
        if not os.path.lexists(self.path):
            return "is missing"
        if not _is_directory(self.path):
            return "is no directory"
        return _mode_and_owner(self.path, self.mode, self.owner)

    def apply(self, system: System) -> None:
        """See Resource."""
        if os.path.lexists(self.path) and not _is_directory(self.path):
            self.path.unlink()
        self.path.mkdir(parents=True, exist_ok=True)
        _own(self.path, self.mode, self.owner)

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (
            Command(("install", "-d", "-m", f"{self.mode:o}", "-o", self.owner, "-g", _group(self.owner),
                     str(self.path))),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TextFile(Resource):
    """A file with a given text, put in place whole or not at all.

    With ``in_place`` a file that is there is written over instead: it is bound into the mount namespaces of running
    programs, which would go on seeing the old one.
    """

    path: Path
    text: str
    mode: int = 0o644
    owner: str = "root"
    in_place: bool = False

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"file {self.path}"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return belonging_to(self.owner)

    @property
    def batched(self) -> bool:
        """See Resource."""
        return True

    def observe(self, system: System) -> str | None:
        """See Resource."""
        if not os.path.lexists(self.path):
            return "is missing"
        regular = _is_regular(self.path)
        seen = self.path.read_text(errors="replace") if regular else None
        if seen != self.text:
            if not _ours(self.path, system):
                if regular:
                    raise NotOurs(system.host, f"a file {self.path}", ("rm", str(self.path)))
                raise NotOurs(system.host, f"{self.path}, which is no file,", ("rm", "-r", str(self.path)))
            return "has another text than planned" if regular else "is no file"
        return _mode_and_owner(self.path, self.mode, self.owner)

    def apply(self, system: System) -> None:
        """See Resource."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if _is_directory(self.path):
            shutil.rmtree(self.path)
        if self.in_place and self.path.exists():
            durable.overwrite(self.path, self.text)
            _own(self.path, self.mode, self.owner)
            return
        # A phase that was on is converged at boot, so a name that a power cut takes comes back; each would cost a sync.
        durable.replace(self.path, self.text, mode=self.mode, owner=owner_ids(self.owner), keep_name=False)

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (Write(str(self.path), self.text, self.mode, self.owner),)


def digest(files: Sequence[TextFile]) -> str:
    """Return what tells the texts of some files from others: whoever says it is another one when they are."""
    return hashlib.sha256("\0".join(file.text for file in files).encode()).hexdigest()[:12]


def discover(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find our files: all below our directories, and marked ones in shared directories."""
    top = system.mark.settings
    if top.is_dir():
        for path in sorted(top.rglob("*")):
            if _is_directory(path):
                yield Found(f"directory {path}", _directory_remover(path))
            else:
                yield Found(f"file {path}", _file_remover(path))
        yield Found(f"directory {top}", _directory_remover(top))
    # Below a run directory lies what programs put there while they run; it goes with its directory.
    run = system.mark.run
    if run.is_dir():
        yield from (Found(f"directory {path}", _directory_remover(path)) for path in sorted(run.iterdir()))
        yield Found(f"directory {run}", _directory_remover(run))
    for directory, pattern in _among_others().items():
        for path in marked(directory, pattern, system.mark):
            yield Found(f"file {path}", _file_remover(path))


def _among_others() -> Mapping[Path, str]:
    """Return the pattern of our files in each directory of others."""
    return {_NETNS: "*/resolv.conf", _CERTIFICATES: "*/ca.crt"}


def marked(directory: Path, pattern: str, mark: Mark) -> Iterator[Path]:
    """Yield the files in a directory of others that carry our mark, sorted.

    A draft that a killed run left stands for its file. What others have there may be anything: a link that leads
    nowhere now, a directory, something that has just gone.
    """
    found = {path for path in directory.glob(pattern) if _is_marked(path, mark)}
    drafts = directory.glob(str(durable.draft(Path(pattern))))
    found |= {durable.of_draft(draft) for draft in drafts if _is_marked(draft, mark)}
    yield from sorted(found)


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _is_marked(path: Path, mark: Mark) -> bool:
    try:
        if not _is_regular(path):
            return False
        with path.open(errors="replace") as file:
            return mark.text in file.read(_HEAD)
    except FileNotFoundError:
        return False


def _ours(path: Path, system: System) -> bool:
    mark = system.mark
    return any(path.is_relative_to(top) for top in (mark.settings, mark.run, mark.state)) or _is_marked(path, mark)


def _directory_remover(path: Path) -> Callable[[System], None]:
    def remove(system: System) -> None:
        shutil.rmtree(path, ignore_errors=True)
        top = system.mark.places.run
        if path.parent == top and not any(top.iterdir()):
            top.rmdir()

    return remove


def _file_remover(path: Path) -> Callable[[System], None]:
    def remove(system: System) -> None:
        durable.remove(path)
        # A directory for the one file in it; and theirs, if nobody else has one.
        top = next((top for top in _among_others() if path.is_relative_to(top)), None)
        if top is not None and not any(path.parent.iterdir()):
            path.parent.rmdir()
            if not any(top.iterdir()):
                top.rmdir()

    return remove


def _own(path: Path, mode: int, owner: str) -> None:
    os.chown(path, *owner_ids(owner))
    path.chmod(mode)


def owner_ids(owner: str) -> tuple[int, int]:
    """Return the numbers of a user and its group; ``owner`` is a name, or a number. KeyError if nobody is called so."""
    if owner.isdecimal():  # a user that only images know
        return int(owner), int(owner)
    entry = pwd.getpwnam(owner)
    return entry.pw_uid, entry.pw_gid


def _mode_and_owner(path: Path, mode: int, owner: str) -> str | None:
    there = path.stat()
    if there.st_mode & 0o7777 != mode:
        return f"mode is {there.st_mode & 0o7777:o}, planned {mode:o}"
    return owner_differs(path, owner)


def owner_differs(path: Path, owner: str) -> str | None:
    """Return None if a file belongs to ``owner``, else to whom it does."""
    number = path.stat().st_uid
    return None if number == owner_ids(owner)[0] else f"owner is {_name(number)}, planned {owner}"


def _name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)  # of a user that is no longer there


def _group(owner: str) -> str:
    if owner.isdecimal():
        return owner
    # `explain` may run where the host's users are unknown; there a user's group is taken to have the user's name.
    try:
        return grp.getgrgid(pwd.getpwnam(owner).pw_gid).gr_name
    except KeyError:
        return owner
