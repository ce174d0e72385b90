"""Starts the whole shop on 127.0.0.1 with the real nginx, Redis and PostgreSQL, in a directory of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from provision.shop import Patience, Site, edge_text

ROOT = Path(__file__).parents[2]
LOCAL = "127.0.0.1"
PASSWORD = "a password"
PATIENCE = 15.0
#: How long the two edges wait; the second is for tests that wait for it.
HASTY = Patience(0.3)
_PATIENCE = {"edge": Patience(3), "hasty": HASTY}
#: Seconds.
_SERVICE_TIMES = {
    "DATABASE_CONNECT_TIMEOUT": "2",
    "DATABASE_WAIT_TIMEOUT": "0.5",
    "DATABASE_STATEMENT_TIMEOUT": "2",
    "UPSTREAM_CONNECT_TIMEOUT": "2",
    "UPSTREAM_READ_TIMEOUT": "6",
    "UPSTREAM_TOTAL_TIMEOUT": "9",
}


def missing_programs() -> list[str]:
    """Names of the programs that this machine lacks."""
    return [name for name in ("nginx", "redis-server", "initdb", "postgres", "psql") if program(name) is None]


def program(name: str) -> str | None:
    """Find a program; Debian keeps PostgreSQL's and nginx outside of an ordinary user's PATH."""
    places = [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), os.environ["PATH"]]
    return shutil.which(name, path=os.pathsep.join([*places, "/usr/sbin"]))


def until(what: str, good: Callable[[], bool], patience: float = PATIENCE) -> float:
    """Wait until ``good``; return the seconds that it took."""
    started = time.monotonic()
    while not good():
        assert time.monotonic() - started < patience, f"{what}: not within {patience} s"
        threading.Event().wait(0.02)
    return time.monotonic() - started


def free_port() -> int:
    with socket.create_server((LOCAL, 0)) as server:
        return int(server.getsockname()[1])


def listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((LOCAL, port)) == 0


@dataclass
class Shop:
    """The programs by name; ``ports`` tells where each listens."""

    place: Path
    ports: Mapping[str, int]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def url(self, name: str, path: str) -> str:
        return f"http://{LOCAL}:{self.ports[name]}{path}"

    def start(self, name: str) -> None:
        argv, environment = self._command(name)
        # PostgreSQL and nginx are to run without privilege; as root they get another user.
        user = "nobody" if os.geteuid() == 0 and name in {"postgres", *_PATIENCE} else None
        with (self.place / f"{name}.log").open("ab") as log:
            if user:
                os.fchown(log.fileno(), pwd.getpwnam(user).pw_uid, -1)  # nginx opens /dev/stdout by its name
            self.running[name] = subprocess.Popen(
                argv, stdout=log, stderr=log, cwd=ROOT, env=environment, user=user, extra_groups=[] if user else None
            )
        until(f"{name} listens", lambda: listening(self.ports[name]))

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> float:
        """Stop a program; return the seconds until it had ended."""
        process = self.running.pop(name)
        process.send_signal(number)
        started = time.monotonic()
        process.wait(PATIENCE)
        return time.monotonic() - started

    def freeze(self, name: str) -> Callable[[], None]:
        """Stop a program and its children in their tracks; what is returned lets them go on."""
        parent = self.running[name].pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()
        family = [parent, *map(int, children)]
        for pid in family:
            os.kill(pid, signal.SIGSTOP)

        def go_on() -> None:
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

        return go_on

    def stop_all(self) -> None:
        for name, process in self.running.items():
            process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
        for process in self.running.values():
            process.wait(PATIENCE)

    def connect(self, user: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=LOCAL, port=self.ports["postgres"], dbname="postgres", user=user, password=PASSWORD, autocommit=True
        )

    def query(self, statement: sql.SQL | sql.Composed) -> list[tuple[object, ...]]:
        with self.connect() as connection:
            return connection.execute(statement).fetchall()

    def log(self, name: str) -> str:
        return (self.place / f"{name}.log").read_text(encoding="utf-8")

    def make_database(self) -> None:
        secret = self.place / "password"
        secret.write_text(f"{PASSWORD}\n", encoding="utf-8")
        _give_away(self.place)
        initdb = ["-D", "data", "-U", "postgres", "--pwfile", str(secret), "-A", "scram-sha-256", "--no-sync"]
        user = "nobody" if os.geteuid() == 0 else None
        subprocess.run(
            [str(program("initdb")), *initdb],
            cwd=self.place,
            check=True,
            capture_output=True,
            user=user,
            extra_groups=[] if user else None,
            timeout=60,
        )
        self.start("postgres")
        until("the database answers", self._database_answers)
        with self.connect() as connection:
            for role in ("product", "order"):
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(PASSWORD))
                )
        self.apply_schema()

    def apply_schema(self) -> str:
        """Run schema.sql; return what psql said."""
        names = "\\set product_role product\n\\set order_role order\n"
        return self.psql(names + (ROOT / "services" / "database" / "schema.sql").read_text(encoding="utf-8"))

    def psql(self, script: str, *, options: str = "", good: bool = True) -> str:
        """Run a script as superuser, with ``options`` of the server for it; return what psql said."""
        user = {"PGUSER": "postgres", "PGDATABASE": "postgres", "PGPASSWORD": PASSWORD, "PGOPTIONS": options}
        done = subprocess.run(
            [str(program("psql")), "-X", "-q", "-h", LOCAL, "-p", str(self.ports["postgres"])],
            env={**os.environ, **user},
            input=script,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode == 0) is good, done.stderr
        return done.stdout + done.stderr

    def _database_answers(self) -> bool:
        try:
            with self.connect():
                return True
        except psycopg.OperationalError:
            return False

    def _command(self, name: str) -> tuple[Sequence[str], Mapping[str, str]]:
        port = str(self.ports[name])
        if name == "redis":
            return [str(program("redis-server")), "--bind", LOCAL, "--port", port, "--save", ""], os.environ
        if name == "postgres":
            options = ["-D", "data", "-h", LOCAL, "-p", port, "-k", str(self.place), "-F"]
            return ["/usr/bin/env", f"--chdir={self.place}", str(program("postgres")), *options], os.environ
        if name in _PATIENCE:
            run = self.place / f"{name}.run"
            run.mkdir(exist_ok=True)
            _give_away(run)
            site = Site(LOCAL, run, self.place, self.place / "password")
            gateways = [(LOCAL, self.ports[f"gateway-{number}"]) for number in (1, 2)]
            file = self.place / f"{name}.conf"
            text = edge_text(site, self.ports[name], "edge", gateways, _PATIENCE[name])
            file.write_text(text, encoding="utf-8")
            return [str(program("nginx")), "-c", str(file)], os.environ
        service = name.split("-", maxsplit=1)[0]
        return [sys.executable, "-m", f"services.{service}"], self._environment(name)

    def _environment(self, name: str) -> Mapping[str, str]:
        service = name.split("-", maxsplit=1)[0]
        return {
            "PATH": os.environ["PATH"],
            "BIND_ADDRESS": LOCAL,
            "PORT": str(self.ports[name]),
            "REPLICA": name,
            "PRODUCT_URL": self.url("product-1", ""),
            "ORDER_URL": self.url("order-1", ""),
            "DATABASE_HOST": LOCAL,
            "DATABASE_PORT": str(self.ports["postgres"]),
            "DATABASE_NAME": "postgres",
            "DATABASE_USER": service,
            "DATABASE_PASSWORD_FILE": str(self.place / "password"),
            **_SERVICE_TIMES,
            "REDIS_HOST": LOCAL,
            "REDIS_PORT": str(self.ports["redis"]),
            "REDIS_BACKOFF": "0.3",
        }


def make_shop() -> Shop:
    """Start everything; stop it with :meth:`Shop.stop_all` and remove ``place``."""
    names = ("redis", "postgres", "product-1", "order-1", "gateway-1", "gateway-2", *_PATIENCE)
    shop = Shop(Path(tempfile.mkdtemp(prefix="shop-")), {name: free_port() for name in names})
    try:
        shop.make_database()
        for name in names:
            if name != "postgres":
                shop.start(name)
    except BaseException:
        shop.stop_all()
        raise
    return shop


def _give_away(place: Path) -> None:
    """Let the user without privilege write in the directory."""
    if os.geteuid() == 0:
        for path in (place, *place.iterdir()):
            os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
