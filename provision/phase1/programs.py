"""The shop in phase 1: each replica a supervised process in its own namespace, under the user of its service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from provision import shop
from provision.marks import Mark
from provision.phase1.facts import Facts
from provision.plug import INNER
from provision.resource import Resource, Section
from provision.resources.file import Directory, TextFile
from provision.resources.postgres import Cluster, Database
from provision.resources.program import Probe, Program
from provision.resources.secret import PasswordFile
from provision.resources.user import User
from provision.shop import Site
from underlay.repository import REPOSITORY
from underlay.topology import Plan, Replica, Service
from underlay.topology import Program as Kind

#: Only the service itself, and root, have business there.
_PRIVATE = 0o700

#: What one maker is given: the plan, the mark, the service and one of its replicas.
Maker = Callable[[Plan, Mark, Service, Replica], tuple[Resource, ...]]


def users(plan: Plan, host: str) -> Section:
    """Return a user for each service of the host."""
    return Section(
        "A user for each service",
        "Processes of one user may read each other's memory and files, past every rule of the network. So no two "
        "services share one. Docker's containers share root unless their images name a user.",
        tuple(User(shop.user(service)) for service in plan.services_on(host)),
    )


def data(plan: Plan, host: str, mark: Mark, facts: Facts) -> Section:
    """Return what keeps the shop's data: Redis, and PostgreSQL with its database."""

    def postgres(plan: Plan, mark: Mark, service: Service, replica: Replica) -> tuple[Resource, ...]:
        return _postgres(plan, mark, service, replica, facts)

    return Section(
        "The data",
        "Redis is a cache and keeps nothing on disk. PostgreSQL gets a cluster of its own; it lets each of the shop's "
        "services in under a role of its own, with a password that only that service can read.",
        (*_secrets(plan, host, mark), *_all(plan, host, mark, {Kind.REDIS: _redis, Kind.POSTGRES: postgres})),
    )


def programs(plan: Plan, host: str, mark: Mark) -> Section:
    """Return the shop's own services and its edge, inner ones first."""
    makers = {Kind.PRODUCT: _python, Kind.ORDER: _python, Kind.GATEWAY: _python, Kind.NGINX: _edge}
    return Section(
        "The shop",
        "Each replica is a process in its own namespace, without privileges, told by its environment where to listen "
        "and whom to ask. That it can reach only what the plan allows is not its own merit: the rules see to it.",
        tuple(_all(plan, host, mark, makers)),
    )


def _all(plan: Plan, host: str, mark: Mark, makers: Mapping[Kind, Maker]) -> tuple[Resource, ...]:
    found: list[Resource] = []
    for kind, make in makers.items():
        for service in plan.services_on(host):
            if service.program is kind:
                for replica in service.replicas:
                    found += make(plan, mark, service, replica)
    return tuple(found)


def _site(mark: Mark, service: Service, replica: Replica) -> Site:
    """Return where a replica is, and what is its own."""
    return Site(
        listen=str(replica.ip),
        run=mark.run / replica.name,
        settings=mark.settings / replica.name,
        password=mark.settings / "secrets" / service.name,
    )


def _secrets(plan: Plan, host: str, mark: Mark) -> tuple[Resource, ...]:
    """Return the password of each service that has a role, for it alone; and of all roles, for root, at the database.

    That one sets them, and services may be on another host.
    """
    top = mark.settings / "secrets"
    services = plan.services_on(host)
    roles_of = {service: role for service in services if (role := shop.role(service))}
    own = [PasswordFile(top / service.name, shop.user(service), role) for service, role in roles_of.items()]
    roles = _roles(mark)
    every = [PasswordFile(roles / kind.value, "root", kind.value) for kind in shop.ROLES]
    has_database = any(service.program is Kind.POSTGRES for service in services)
    found = [*own, *([Directory(roles, _PRIVATE), *every, _seal(mark)] if has_database else [])]
    return (Directory(top), *found) if found else ()


def _seal(mark: Mark) -> PasswordFile:
    """Return what tells the database's passwords from others, and is none itself."""
    return PasswordFile(mark.settings / "seal", "root", "seal")


def _roles(mark: Mark) -> Path:
    """Return where the passwords of all roles are, for root alone."""
    return mark.settings / "roles"


def _room(mark: Mark, service: Service, site: Site) -> tuple[Resource, ...]:
    """Return the only directory in which the replica may write."""
    return (Directory(mark.run), Directory(site.run, _PRIVATE, shop.user(service)))


def _on(replica: Replica) -> tuple[str, ...]:
    return (f"link {replica.namespace}/{INNER}",)


def _redis(plan: Plan, mark: Mark, service: Service, replica: Replica) -> tuple[Resource, ...]:
    site = _site(mark, service, replica)
    return (
        *_room(mark, service, site),
        Program(
            replica.name,
            replica.namespace,
            shop.user(service),
            ("redis-server", *shop.redis_options(service, site)),
            probe=Probe(replica.ip, service.port),
            on=_on(replica),
        ),
    )


def _postgres(plan: Plan, mark: Mark, service: Service, replica: Replica, facts: Facts) -> tuple[Resource, ...]:
    site = _site(mark, service, replica)
    entry = shop.postgres_access(plan, service, lambda item: item.ip)
    access = TextFile(site.settings / "pg_hba.conf", f"# {mark.text}\n{entry}")
    superusers = shop.postgres_users("root", shop.user(service))
    users = TextFile(site.settings / "pg_ident.conf", f"# {mark.text}\n{superusers}")
    cluster = Cluster(mark.state / replica.name, facts.postgres, shop.user(service))
    program = Program(
        replica.name,
        replica.namespace,
        shop.user(service),
        (
            str(facts.postgres / "postgres"),
            *("-D", str(cluster.data)),
            *shop.postgres_options(service, site, access.path, users.path),
        ),
        inputs=(access, users),
        probe=Probe(replica.ip, service.port),
        stop_signal="INT",  # a fast shutdown; TERM would wait for every client to leave
        on=_on(replica),
    )
    script = shop.database_script(lambda role: _roles(mark) / role)
    return (
        Directory(site.settings),
        *_room(mark, service, site),
        access,
        users,
        cluster,
        program,
        Database(shop.DATABASE, site.run, service.port, script, program.identity, _seal(mark)),
    )


def _python(plan: Plan, mark: Mark, service: Service, replica: Replica) -> tuple[Resource, ...]:
    site, role = _site(mark, service, replica), shop.role(service)
    environment = shop.environment(plan, service, replica, site)
    return (
        Program(
            replica.name,
            replica.namespace,
            shop.user(service),
            ("python3", "-m", f"services.{service.program.value}"),
            environment=tuple(sorted({**environment, "PYTHONDONTWRITEBYTECODE": "1"}.items())),
            directory=str(REPOSITORY),
            secrets=(PasswordFile(site.password, shop.user(service), role),) if role else (),
            probe=Probe(replica.ip, service.port, "/health"),
            on=_on(replica),
        ),
    )


def _edge(plan: Plan, mark: Mark, service: Service, replica: Replica) -> tuple[Resource, ...]:
    site = _site(mark, service, replica)
    text = shop.edge_config(plan, service, replica, site)
    config = TextFile(site.settings / "nginx.conf", f"# {mark.text}\n{text}")
    return (
        Directory(site.settings),
        *_room(mark, service, site),
        config,
        Program(
            replica.name,
            replica.namespace,
            shop.user(service),
            ("nginx", "-e", "stderr", "-c", str(config.path)),
            inputs=(config,),
            probe=Probe(replica.ip, service.port, "/health"),
            stop_signal="QUIT",
            on=_on(replica),
        ),
    )
