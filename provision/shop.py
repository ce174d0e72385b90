"""The shop's programs as supervised resources: each is told by its environment where it listens and whom it asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template

from provision.facts import Facts
from provision.marks import PHASE1
from provision.resource import Resource, Section
from provision.resources.file import Directory, TextFile
from provision.resources.postgres import Cluster, Database
from provision.resources.program import Program, Ready
from provision.resources.secret import PasswordFile
from underlay.repository import REPOSITORY
from underlay.topology import Plan, Replica, Service
from underlay.topology import Program as Kind

_SHOP = REPOSITORY / "services"
_SETTINGS = Path("/etc/underlay/phase1")
_SECRETS = _SETTINGS / "secrets"
_RUN = Path("/run/underlay/phase1")
_DATA = Path("/var/lib/underlay/phase1")
_DATABASE = "shop"
#: The user that the shop's own programs run as; the image makes it.
_USER = "shop"
#: The programs that have a role of their own in the database.
_ROLES = (Kind.PRODUCT, Kind.ORDER)
_REDIS_MEMORY = "64mb"


class _EdgeTemplate(Template):
    """A template whose placeholders look like @{name}, since nginx has its own use for the dollar sign."""

    delimiter = "@"


def data(plan: Plan, host: str, facts: Facts) -> Section:
    """Return what keeps the shop's data: Redis, and PostgreSQL with its database."""
    resources: list[Resource] = []
    if any(service.program in (*_ROLES, Kind.POSTGRES) for service in plan.services_on(host)):
        resources.append(Directory(_SECRETS))
        resources += [PasswordFile(_SECRETS / kind.value, kind.value, _USER) for kind in _ROLES]
    for service in plan.services_on(host):
        for replica in service.replicas:
            if service.program is Kind.REDIS:
                resources.append(_redis(service, replica))
            elif service.program is Kind.POSTGRES:
                resources += _postgres(plan, service, replica, facts)
    return Section(
        "The data",
        "Redis is a cache and keeps nothing on disk. PostgreSQL gets a cluster of its own; it lets each of the shop's "
        "services in under a role of its own, with a password that only that service can read.",
        tuple(resources),
    )


def programs(plan: Plan, host: str) -> Section:
    """Return the shop's own services and its edge, inner ones first."""
    makers: Mapping[Kind, Callable[[Plan, Service, Replica], tuple[Resource, ...]]] = {
        Kind.PRODUCT: _product,
        Kind.ORDER: _order,
        Kind.GATEWAY: _gateway,
        Kind.NGINX: _edge,
    }
    resources: list[Resource] = []
    for kind, make in makers.items():
        for service in plan.services_on(host):
            if service.program is kind:
                for replica in service.replicas:
                    resources += make(plan, service, replica)
    return Section(
        "The shop",
        "Each replica is a process in its own namespace, without privileges, told by its environment where to listen "
        "and whom to ask. That it can reach only what the plan allows is not its own merit: the rules see to it.",
        tuple(resources),
    )


def _redis(service: Service, replica: Replica) -> Program:
    return Program(
        replica.name,
        replica.namespace,
        "redis",
        ("redis-server", "--bind", str(replica.ip), "--port", str(service.port), "--protected-mode", "no",
         "--save", "", "--appendonly", "no", "--maxmemory", _REDIS_MEMORY, "--maxmemory-policy", "allkeys-lru",
         "--dir", "/tmp"),  # noqa: S108 - nothing is ever written there
        ready=Ready(replica.ip, service.port),
    )  # fmt: skip


def _postgres(plan: Plan, service: Service, replica: Replica, facts: Facts) -> tuple[Resource, ...]:
    cluster, sockets, settings = _DATA / replica.name, _RUN / replica.name, _SETTINGS / replica.name
    clients = [
        (kind.value, item.ip)
        for source, item in plan.replicas()
        for kind in _ROLES
        if source.program is kind and plan.allows(source.name, service.name)
    ]
    # https://www.postgresql.org/docs/current/auth-pg-hba-conf.html; root comes in as superuser to make the database.
    access_text = "\n".join(
        (
            f"# {PHASE1.text}",
            "local all postgres peer map=lab",
            *(f"host {_DATABASE} {role} {address}/32 scram-sha-256" for role, address in clients),
            "",
        )
    )
    access = TextFile(settings / "pg_hba.conf", access_text)
    users = TextFile(settings / "pg_ident.conf", f"# {PHASE1.text}\nlab root postgres\nlab postgres postgres\n")
    options = {
        "listen_addresses": str(replica.ip),
        "port": str(service.port),
        "unix_socket_directories": str(sockets),
        "hba_file": str(access.path),
        "ident_file": str(users.path),
        "shared_buffers": "32MB",
        "max_connections": "100",
    }
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    return (
        Directory(settings),
        access,
        users,
        Directory(_RUN),
        Directory(sockets, owner="postgres"),
        Cluster(cluster, facts.postgres),
        Program(
            replica.name,
            replica.namespace,
            "postgres",
            (str(facts.postgres / "postgres"), "-D", str(cluster), *words),
            inputs=(access, users),
            ready=Ready(replica.ip, service.port),
            stop_signal="INT",  # a fast shutdown; TERM would wait for every client to leave
        ),
        Database(_DATABASE, sockets, service.port, _script()),
    )


def _script() -> str:
    """Roles with their passwords, which psql reads from their files by itself, then the shop's own schema."""
    lines = ["SET log_min_error_statement = panic;"]
    for kind in _ROLES:
        role = kind.value
        known = f"SELECT FROM pg_roles WHERE rolname = '{role}'"
        lines += [
            f"\\set password `cat {_SECRETS / role}`",
            f"SELECT 'CREATE ROLE \"{role}\" LOGIN' WHERE NOT EXISTS ({known}) \\gexec",
            f"ALTER ROLE \"{role}\" PASSWORD :'password';",
            f"\\set {role}_role {role}",
        ]
    return "\n".join([*lines, (_SHOP / "database" / "schema.sql").read_text()])


def _product(plan: Plan, service: Service, replica: Replica) -> tuple[Resource, ...]:
    cache = plan.targets(service.name, Kind.REDIS)
    environment = _database(plan, service)
    if cache:
        environment |= {
            "REDIS_HOST": cache[0].name,
            "REDIS_PORT": str(cache[0].port),
            "CACHE_TTL": f"{plan.timeouts.cache:g}",
        }
    return (_python(plan, service, replica, environment),)


def _order(plan: Plan, service: Service, replica: Replica) -> tuple[Resource, ...]:
    return (_python(plan, service, replica, _database(plan, service)),)


def _gateway(plan: Plan, service: Service, replica: Replica) -> tuple[Resource, ...]:
    environment = {}
    for variable, kind in (("PRODUCT_URL", Kind.PRODUCT), ("ORDER_URL", Kind.ORDER)):
        target = plan.targets(service.name, kind)[0]
        environment[variable] = f"http://{target.name}:{target.port}"
    environment["UPSTREAM_CONNECT_TIMEOUT"] = f"{plan.timeouts.connect:g}"
    return (_python(plan, service, replica, environment),)


def _database(plan: Plan, service: Service) -> dict[str, str]:
    target = plan.targets(service.name, Kind.POSTGRES)[0]
    return {
        "DATABASE_HOST": target.name,
        "DATABASE_PORT": str(target.port),
        "DATABASE_NAME": _DATABASE,
        "DATABASE_USER": service.program.value,
        "DATABASE_PASSWORD_FILE": str(_SECRETS / service.program.value),
        "DATABASE_CONNECT_TIMEOUT": f"{plan.timeouts.connect:g}",
    }


def _python(plan: Plan, service: Service, replica: Replica, environment: Mapping[str, str]) -> Program:
    own = {"BIND_ADDRESS": str(replica.ip), "PORT": str(service.port), "REPLICA": replica.name}
    return Program(
        replica.name,
        replica.namespace,
        _USER,
        ("python3", "-m", f"services.{service.program.value}"),
        environment=tuple(sorted({**own, **environment, "PYTHONDONTWRITEBYTECODE": "1"}.items())),
        directory=str(REPOSITORY),
        ready=Ready(replica.ip, service.port, "/health"),
    )


def _edge(plan: Plan, service: Service, replica: Replica) -> tuple[Resource, ...]:
    run, settings = _RUN / replica.name, _SETTINGS / replica.name
    gateways = [
        f"server {item.ip}:{target.port} max_fails=1 fail_timeout={plan.timeouts.connect:g}s;"
        for target in plan.targets(service.name, Kind.GATEWAY)
        for item in target.replicas
    ]
    template = _EdgeTemplate((_SHOP / "edge" / "nginx.conf.template").read_text())
    text = template.substitute(
        listen_address=str(replica.ip),
        port=str(service.port),
        upstream_servers="\n        ".join(gateways),
        connect_timeout=f"{plan.timeouts.connect:g}",
        run_dir=str(run),
        replica=replica.name,
    )
    config = TextFile(settings / "nginx.conf", f"# {PHASE1.text}\n{text}")
    return (
        Directory(settings),
        config,
        Directory(_RUN),
        Directory(run, owner=_USER),
        Program(
            replica.name,
            replica.namespace,
            _USER,
            ("nginx", "-e", "stderr", "-c", str(config.path)),
            inputs=(config,),
            ready=Ready(replica.ip, service.port, "/health"),
            stop_signal="QUIT",
        ),
    )
