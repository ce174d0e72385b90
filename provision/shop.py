"""What each service of the shop is told, whoever supervises it: arguments, environment, configuration, secrets. Pure.

A phase adds where things are there: :class:`Site`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from string import Template

from underlay.repository import REPOSITORY
from underlay.topology import Plan, Program, Replica, Service

SERVICES = REPOSITORY / "services"
#: The name of the shop's database.
DATABASE = "shop"
#: The programs that have a role of their own in the database, which is called like the program.
ROLES = (Program.PRODUCT, Program.ORDER)
_REDIS_MEMORY = "64mb"
#: Characters of a user's name (useradd(8), CAVEATS).
_LONGEST_USER = 32


@dataclass(frozen=True, slots=True)
class Site:
    """Where one replica is: the address it listens on, and its own directories and password file."""

    listen: str
    run: Path
    settings: Path
    password: Path


@dataclass(frozen=True, slots=True)
class Patience:
    """How long each part of the shop waits, in seconds: each a little longer than whom it asks may take.

    So the one that is asked gives up first and says what was away. All follow from the time of one connection.
    """

    connect: float

    @property
    def database(self) -> float:
        """For a connection to the database, and again for each of its statements."""
        return self.connect

    @property
    def service(self) -> float:
        """A gateway's, for one service: longer than a connection, a statement and what the service adds to it."""
        return 2.5 * self.connect

    @property
    def gateway(self) -> float:
        """A gateway's, for all replicas of a service that it tries."""
        return 3.25 * self.connect

    @property
    def edge(self) -> float:
        """The edge's, for one gateway."""
        return 3.5 * self.connect

    @property
    def customer(self) -> float:
        """The edge's, after which no other gateway is tried: a request outlives one that hangs."""
        return 5 * self.connect


class _EdgeTemplate(Template):
    """A template whose placeholders look like @{name}, since nginx has its own use for the dollar sign."""

    delimiter = "@"


def user(service: Service) -> str:
    """Return the user that the service's replicas run as; it runs nothing else."""
    name = f"shop-{service.name}"
    if len(name) <= _LONGEST_USER:
        return name
    return f"{name[: _LONGEST_USER - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def role(service: Service) -> str | None:
    """Return the service's role in the database, or None."""
    return service.program.value if service.program in ROLES else None


def environment(plan: Plan, service: Service, replica: Replica, site: Site) -> dict[str, str]:
    """Return what one of the shop's own services is told: where to listen, and whom to ask by which name."""
    own = {"BIND_ADDRESS": site.listen, "PORT": str(service.port), "REPLICA": replica.name}
    match service.program:
        case Program.GATEWAY:
            return own | _upstreams(plan, service)
        case Program.PRODUCT:
            return own | _database(plan, service, site) | _cache(plan, service)
        case Program.ORDER:
            return own | _database(plan, service, site)
        case _:
            return own


def _upstreams(plan: Plan, service: Service) -> dict[str, str]:
    found = {}
    for variable, kind in (("PRODUCT_URL", Program.PRODUCT), ("ORDER_URL", Program.ORDER)):
        target = plan.targets(service.name, kind)[0]
        found[variable] = f"http://{target.name}:{target.port}"
    patience = Patience(plan.timeouts.connect)
    return found | {
        "UPSTREAM_CONNECT_TIMEOUT": f"{patience.connect:g}",
        "UPSTREAM_READ_TIMEOUT": f"{patience.service:g}",
        "UPSTREAM_TOTAL_TIMEOUT": f"{patience.gateway:g}",
    }


def _cache(plan: Plan, service: Service) -> dict[str, str]:
    cache = plan.targets(service.name, Program.REDIS)
    if not cache:
        return {}
    return {
        "REDIS_HOST": cache[0].name,
        "REDIS_PORT": str(cache[0].port),
        "CACHE_TTL": f"{plan.timeouts.cache:g}",
    }


def _database(plan: Plan, service: Service, site: Site) -> dict[str, str]:
    target = plan.targets(service.name, Program.POSTGRES)[0]
    patience = Patience(plan.timeouts.connect)
    return {
        "DATABASE_HOST": target.name,
        "DATABASE_PORT": str(target.port),
        "DATABASE_NAME": DATABASE,
        "DATABASE_USER": str(role(service)),
        "DATABASE_PASSWORD_FILE": str(site.password),
        "DATABASE_CONNECT_TIMEOUT": f"{patience.connect:g}",
        "DATABASE_WAIT_TIMEOUT": f"{patience.database:g}",
        "DATABASE_STATEMENT_TIMEOUT": f"{patience.database:g}",
    }


def edge_config(plan: Plan, service: Service, replica: Replica, site: Site) -> str:
    """Return nginx's configuration."""
    patience = Patience(plan.timeouts.connect)
    gateways = [
        (str(item.ip), target.port)
        for target in plan.targets(service.name, Program.GATEWAY)
        for item in target.replicas
    ]
    return edge_text(site, service.port, replica.name, gateways, patience)


def edge_text(site: Site, port: int, name: str, gateways: Sequence[tuple[str, int]], patience: Patience) -> str:
    """Return the same for given addresses and ports of gateways."""
    # Once asked in vain, a gateway is left alone for a while; that, and nothing else, nginx counts in whole seconds.
    alone = f"max_fails=1 fail_timeout={math.ceil(patience.connect)}s"
    return _EdgeTemplate((SERVICES / "edge" / "nginx.conf.template").read_text()).substitute(
        listen_address=site.listen,
        port=str(port),
        upstream_servers="\n        ".join(f"server {address}:{number} {alone};" for address, number in gateways),
        connect_timeout=_nginx_time(patience.connect),
        gateway_timeout=_nginx_time(patience.edge),
        customer_timeout=_nginx_time(patience.customer),
        run_dir=str(site.run),
        replica=name,
    )


def _nginx_time(seconds: float) -> str:
    """Write a time as nginx reads it, which knows no fractions (https://nginx.org/en/docs/syntax.html)."""
    return f"{seconds:g}s" if seconds == int(seconds) else f"{max(1, round(seconds * 1000))}ms"


def redis_options(service: Service, site: Site) -> tuple[str, ...]:
    """Return the options of a Redis that is a cache: it keeps nothing on disk, and forgets what is used least."""
    return ("--bind", site.listen, "--port", str(service.port), "--protected-mode", "no",
            "--save", "", "--appendonly", "no", "--maxmemory", _REDIS_MEMORY, "--maxmemory-policy", "allkeys-lru",
            "--dir", str(site.run))  # fmt: skip


def postgres_options(service: Service, site: Site, access: Path, users: Path) -> tuple[str, ...]:
    """Return PostgreSQL's options; ``access`` and ``users`` are its two files (pg_hba.conf and pg_ident.conf)."""
    options = {
        "listen_addresses": site.listen,
        "port": str(service.port),
        "unix_socket_directories": str(site.run),
        "hba_file": str(access),
        "ident_file": str(users),
        "shared_buffers": "32MB",
        "max_connections": "100",
    }
    return tuple(word for name, value in options.items() for word in ("-c", f"{name}={value}"))


def postgres_access(plan: Plan, service: Service, address: Callable[[Replica], IPv4Address]) -> str:
    """Return pg_hba.conf: each replica that may connect is let in from its own ``address``, under its own role.

    https://www.postgresql.org/docs/current/auth-pg-hba-conf.html; root comes in as superuser to make the database.
    """
    clients = [
        f"host {DATABASE} {role(source)} {address(item)}/32 scram-sha-256"
        for source, item in plan.replicas()
        if role(source) and plan.allows(source.name, service.name)
    ]
    return "\n".join(("local all postgres peer map=lab", *clients, ""))


def postgres_users(*users: str) -> str:
    """Return pg_ident.conf: which users of the system are the superuser."""
    return "".join(f"lab {name} postgres\n" for name in users)


def database_script(password: Callable[[str], Path]) -> str:
    """Return what psql makes the shop's database with.

    Roles with their passwords, which psql reads by itself from the file that ``password`` names for a role; then the
    shop's own schema.
    """
    return "\n".join(
        ["SET log_min_error_statement = panic;", *_role_lines(password), (SERVICES / "database/schema.sql").read_text()]
    )


def _role_lines(password: Callable[[str], Path]) -> Iterator[str]:
    for kind in ROLES:
        name = kind.value
        known = f"SELECT FROM pg_roles WHERE rolname = '{name}'"
        yield f"\\set password `cat {password(name)}`"
        yield f"SELECT 'CREATE ROLE \"{name}\" LOGIN' WHERE NOT EXISTS ({known}) \\gexec"
        yield f"ALTER ROLE \"{name}\" PASSWORD :'password';"
        yield f"\\set {name}_role {name}"
