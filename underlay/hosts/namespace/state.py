"""What is written down about a lab, so that it can be taken down by someone who knows nothing but its name.

The directory of a lab: ``state.json`` (this record), ``lock``, ``secret``, and for each host ``hosts/NAME/`` with
``upper`` and ``work`` (overlayfs), ``docker`` (/var/lib/docker of the host), ``root`` (where it is mounted, seen only
inside) and ``console.log``.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from underlay import durable
from underlay.errors import InputError, NotReady, Problem
from underlay.hosts.namespace.processes import Process
from underlay.wait import NotYet, until

#: Raised when the meaning of the record changes.
SCHEMA = 1
#: Seconds within which the machine itself must have done something for us (end a process, remove a group).
MACHINE_S = 20.0
#: Seconds that a command waits for another one to let go of the lab. One that was killed while it was starting a
#: program holds the lock until that program has begun.
LOCK_S = 2.0
#: Where state is kept unless the environment variable names another place.
DEFAULT_DIRECTORY = Path("/var/lib/underlay")
DIRECTORY_VARIABLE = "UNDERLAY_STATE_DIR"
#: Where labs are pinned unless the environment variable names another place; the machine empties it when it boots.
DEFAULT_RUN_DIRECTORY = Path("/run/underlay")
RUN_VARIABLE = "UNDERLAY_RUN_DIR"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class HostState:
    """One host: what it was made from (a digest), and its first process, once known."""

    name: str
    made_from: str
    process: Process | None = None


@dataclass(frozen=True, slots=True)
class LabState:
    """A lab as it was last brought up. ``wire`` is a digest of what the underlay was made from."""

    lab: str
    plan_text: str
    image: str
    repository: str
    wire: str
    cgroups: tuple[str, ...]
    hosts: tuple[HostState, ...]

    def host(self, name: str) -> HostState | None:
        """Return the record of that host, or None."""
        return next((host for host in self.hosts if host.name == name), None)

    def with_process(self, name: str, process: Process | None) -> LabState:
        """Return the same record with another first process for one host."""
        hosts = tuple(replace(host, process=process) if host.name == name else host for host in self.hosts)
        return replace(self, hosts=hosts)


def state_directory() -> Path:
    """Return the directory that holds all labs."""
    return Path(os.environ.get(DIRECTORY_VARIABLE) or DEFAULT_DIRECTORY).absolute()


def run_directory() -> Path:
    """Return the directory in which labs' network namespaces are pinned.

    Its last name is the first word of every other name of ours that is the whole machine's (control groups, the network
    of vm-env), so that who has a directory of their own here, as the unit tests do, meets no lab of another's.
    """
    return Path(os.environ.get(RUN_VARIABLE) or DEFAULT_RUN_DIRECTORY).absolute()


def store(lab: str) -> Store:
    """Return the store of a lab; InputError when that cannot be a lab's name (it becomes part of paths)."""
    if not _NAME.fullmatch(lab):
        raise InputError(Problem("lab", f"`{lab}` is no name of a lab", "use lower-case letters, digits and hyphens"))
    return Store(state_directory() / "labs" / lab)


def stored_labs() -> tuple[str, ...]:
    """Return the names of all labs that have a directory, sorted."""
    try:
        names = [entry.name for entry in (state_directory() / "labs").iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return ()
    return tuple(sorted(name for name in names if _NAME.fullmatch(name)))


def to_json(state: LabState) -> str:
    """Write a record as JSON."""
    return json.dumps({"schema": SCHEMA, **asdict(state)}, indent=1)


def from_json(text: str, where: str) -> LabState:
    """Read a record; NotReady when it is not one, or of another version of Underlay."""
    hint = "`./lab down` removes what there is; then bring the lab up again"
    try:
        data = json.loads(text)
        if data["schema"] != SCHEMA:
            what = f"this record has schema {data['schema']}, this version of Underlay knows {SCHEMA}"
            raise NotReady(Problem(where, what, hint))
        return LabState(
            lab=data["lab"],
            plan_text=data["plan_text"],
            image=data["image"],
            repository=data["repository"],
            wire=data["wire"],
            cgroups=tuple(data["cgroups"]),
            hosts=tuple(_host(host) for host in data["hosts"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise NotReady(Problem(where, f"this record of a lab cannot be read ({error!r})", hint)) from error


@dataclass(frozen=True, slots=True)
class Store:
    """The directory of one lab."""

    directory: Path

    @property
    def lab(self) -> str:
        """The lab's name."""
        return self.directory.name

    @property
    def pin(self) -> Path:
        """The file on which the underlay's network namespace is mounted."""
        return run_directory() / self.lab / "net"

    @property
    def _file(self) -> Path:
        return self.directory / "state.json"

    def exists(self) -> bool:
        """Whether anything of this lab is written down."""
        return self.directory.is_dir()

    def read(self) -> LabState | None:
        """Return the record, or None when there is none; NotReady when it cannot be read."""
        try:
            return from_json(self._file.read_text(), str(self._file))
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise NotReady(Problem(str(self._file), "only root may read this", "run it as root (sudo)")) from error

    def write(self, state: LabState) -> None:
        """Replace the record in one step: a reader, or a power cut, sees the old one or the new one."""
        durable.replace(self._file, to_json(state))

    def make_secret(self) -> None:
        """Make the lab's secret (32 random bytes as hexadecimal digits) unless it has one; the caller has the lock."""
        path = self.directory / "secret"
        if not path.exists():
            durable.replace(path, secrets.token_hex(32), mode=0o600)

    def secret(self) -> str:
        """Return the lab's secret."""
        return (self.directory / "secret").read_text()

    def host_directory(self, name: str) -> Path:
        """Return where a host keeps its disk and its log."""
        return self.directory / "hosts" / name

    @contextmanager
    def locked(self, *, wait_s: float = LOCK_S) -> Iterator[None]:
        """Hold the lab alone; NotReady, naming the holder, when another process does for ``wait_s`` seconds.

        Makes the lab's directory, and removes it afterwards if nothing is recorded in it. The kernel lets go of the
        lock when its holder ends, however it ends (flock(2)).
        """
        path = self.directory / "lock"
        descriptor = until(
            lambda: self._try_lock(path),
            deadline_s=wait_s,
            what="access to the lab",
            where=f"lab {self.lab}",
            hint="let the other command end, or end it, and try again",
        )
        try:
            yield
        finally:
            if not self._file.exists():
                self._forget()
            os.close(descriptor)

    def _forget(self) -> None:
        # The lock goes while it is held; who waits for it finds out that the file is no longer there.
        (self.directory / "lock").unlink(missing_ok=True)
        with suppress(OSError):  # not empty: someone has begun this lab anew
            self.directory.rmdir()
        with suppress(OSError):  # not empty: another lab's
            self.directory.parent.rmdir()
            if state_directory() == DEFAULT_DIRECTORY:  # any other one was not made by us
                DEFAULT_DIRECTORY.rmdir()

    def _try_lock(self, path: Path) -> int | NotYet:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return NotYet("the lab being removed")
        except PermissionError as error:
            raise NotReady(Problem(str(path), "only root may change a lab", "run it as root (sudo)")) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode() or "?"
            os.close(descriptor)
            return NotYet(f"process {holder.strip()} is changing it")
        # `down` removes the file while it holds it: make sure that what was locked is still what others will find.
        try:
            same = os.path.samestat(os.fstat(descriptor), path.stat())
        except FileNotFoundError:
            same = False
        if not same:
            os.close(descriptor)
            return NotYet("the lab being removed")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor


def _host(data: Mapping[str, object]) -> HostState:
    process = data["process"]
    if isinstance(process, dict):
        known = Process(pid=int(process["pid"]), started=int(process["started"]), boot=str(process["boot"]))
    else:
        known = None
    return HostState(name=str(data["name"]), made_from=str(data["made_from"]), process=known)
