"""A PostgreSQL cluster and the shop's database in it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from provision.marks import Mark
from provision.postgres import ask
from provision.processes import frozen
from provision.resource import Await, Command, Feed, Found, Resource, Step
from provision.resources.file import owner_differs
from provision.resources.secret import PasswordFile
from provision.resources.user import belonging_to
from provision.system import System
from underlay import durable
from underlay.errors import NotReady
from underlay.wait import NotYet, until

#: The role that may do everything, by which the shop's database is made.
_SUPERUSER = "postgres"
#: Seconds between two questions to a server that takes long to start: each takes processor time from it.
_SLOWEST_S = 0.5


@dataclass(frozen=True, slots=True)
class Cluster(Resource):
    """A cluster's data directory, as initdb makes it, of ``user``. ``programs`` is where the server's programs are."""

    data: Path
    programs: Path
    user: str

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"data {self.data}"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return belonging_to(self.user)

    @property
    def batched(self) -> bool:
        """See Resource."""
        return False

    def observe(self, system: System) -> str | None:
        """See Resource."""
        if not (self.data / "PG_VERSION").exists():
            return "is missing"
        return owner_differs(self.data, self.user)

    def apply(self, system: System) -> None:
        """See Resource. The directory gets its name when it is whole: initdb takes a second and may be killed."""
        if (self.data / "PG_VERSION").exists():
            system.run("chown", "--recursive", f"{self.user}:{self.user}", str(self.data))
            return
        draft = durable.draft(self.data)
        for leftover in (draft, self.data):
            if leftover.exists():
                shutil.rmtree(leftover)
        draft.mkdir(parents=True, mode=0o700)
        shutil.chown(draft, self.user, self.user)
        system.run(*self._command(draft))
        system.run(*self._sync(draft))
        draft.rename(self.data)

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (
            Command(("install", "-d", "-m", "700", "-o", self.user, "-g", self.user, str(self.data))),
            Command(self._command(self.data)),
            Command(self._sync(self.data)),
        )

    def _sync(self, data: Path) -> tuple[str, ...]:
        # A power cut must not leave half of it; initdb itself would wait for each of its thousand files.
        return ("sync", "--file-system", str(data))

    def _command(self, data: Path) -> tuple[str, ...]:
        return ("setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--init-groups", "--",
                str(self.programs / "initdb"), "--pgdata", str(data), "--no-sync", "--no-instructions",
                f"--username={_SUPERUSER}",
                "--encoding=UTF8", "--locale=C.UTF-8", "--auth-local=peer", "--auth-host=reject")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Database(Resource):
    """Roles, tables and goods of the shop.

    ``sockets`` is the directory of the server's unix socket, ``server`` the identity of what serves there. ``script``
    is made for psql: safe to run again, and reads passwords from their files by itself. A digest of it and what is in
    ``seal``, which is another one when the passwords are, are kept as the database's comment, so that one question
    tells whether it has run, and with these passwords.
    """

    name: str
    sockets: Path
    port: int
    script: str
    server: str
    seal: PasswordFile

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"database {self.name} of {self.sockets.name}"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return (self.server, self.seal.identity)

    @property
    def batched(self) -> bool:
        """See Resource."""
        return False

    def observe(self, system: System) -> str | None:
        """See Resource."""
        if not any(self.sockets.glob(".s.PGSQL.*")):
            return "cannot be asked, its server is not running"
        if any(frozen(pid) for pid in self._servers()):
            return "cannot be asked, its server is frozen"  # the kernel takes connections for it, and nobody answers
        question = f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{self.name}'"  # noqa: S608 - a name of ours
        try:
            said, wanted = self._ask(system, question), f"{self._digest} {self.seal.text(system)}"
            if said == wanted:
                return None
            known = said.startswith(self._digest)
            return "knows other passwords than the services have" if known else "lacks what its script makes"
        except NotReady as error:
            return f"cannot be asked: {error.problems[0].what}"

    def apply(self, system: System) -> None:
        """See Resource."""

        def server() -> bool | NotYet:
            try:
                return bool(self._ask(system, "SELECT 1"))
            except NotReady as error:
                return NotYet(error.problems[0].what)

        until(
            server,
            deadline_s=system.timeouts.ready,
            what="PostgreSQL's answer on its socket",
            where=system.host,
            slowest=_SLOWEST_S,
        )
        if not self._ask(system, f"SELECT 1 FROM pg_database WHERE datname = '{self.name}'"):  # noqa: S608 - as above
            system.run(*self._psql("postgres"), "--command", f'CREATE DATABASE "{self.name}"')
        system.run(*self._psql(self.name), stdin=self._whole)

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (
            Await((*self._psql("postgres"), "--command", "SELECT 1")),
            Command((*self._psql("postgres"), "--command", f'CREATE DATABASE "{self.name}"')),
            Feed(self._psql(self.name), self._whole),
        )

    def _servers(self) -> Iterator[int]:
        """Yield who holds the sockets: each has a lock file, whose first line is the server's pid."""
        for lock in self.sockets.glob(".s.PGSQL.*.lock"):
            with suppress(OSError, ValueError):  # it has just ended
                yield int(lock.read_text(encoding="ascii").split()[0])

    @property
    def _digest(self) -> str:
        return hashlib.sha256(self.script.encode()).hexdigest()

    @property
    def _whole(self) -> str:
        seal = f"\\set seal `cat {self.seal.path}`\n\\set comment '{self._digest} ' :seal\n"
        return f"{self.script}\n{seal}COMMENT ON DATABASE \"{self.name}\" IS :'comment';\n"

    def _ask(self, system: System, question: str) -> str:
        limit = system.timeouts.command
        return ask(
            self.sockets, self.port, question, user=_SUPERUSER, database="postgres", timeout=limit, where=system.host
        )

    def _psql(self, database: str) -> tuple[str, ...]:
        return ("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1",
                "--host", str(self.sockets), "--port", str(self.port),
                "--username", _SUPERUSER, "--dbname", database)  # fmt: skip


def discover(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find the data directories of our phase."""
    top = system.mark.state
    for path in sorted(top.iterdir()) if top.is_dir() else ():
        yield Found(f"data {path}", _remover(path))


def _remover(path: Path) -> Callable[[System], None]:
    def remove(system: System) -> None:
        shutil.rmtree(path)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()

    return remove
