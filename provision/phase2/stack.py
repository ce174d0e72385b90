"""The shop as containers of one Compose project. Pure: the plan and the images' digests in, resources out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from provision import shop
from provision.marks import Mark
from provision.phase2 import compose
from provision.phase2.facts import Facts
from provision.phase2.network import PROJECT
from provision.resource import Resource, Section
from provision.resources.docker.container import Confined, Container, Membership, Mount, Pace
from provision.resources.docker.image import PulledImage
from provision.resources.docker.network import DockerNetwork, Volume
from provision.resources.file import Directory, TextFile, digest
from provision.resources.secret import PasswordFile
from provision.shop import Site
from underlay.topology import Containers, Plan, Program, Replica, Service

#: The image of each program; the shop's own services have one that is called like them.
_IMAGES = {Program.NGINX: "edge", Program.REDIS: "cache", Program.POSTGRES: "database"}
#: MiB, and parts of a processor.
_MEMORY, _DATABASE_MEMORY, _CPUS = 128, 256, 0.5
#: Processes and threads: a database has one for each connection.
_PIDS, _DATABASE_PIDS = 64, 256
#: Where a container finds its settings, and its data.
_SETTINGS, _DATA = Path("/etc/shop"), "/var/lib/shop/postgresql"
_SECRETS = Path("/run/secrets")
_PASSWORD = "password"  # noqa: S105 - a file's name
_ROOM_SIZE = "16m"
#: Those come first on whom others stand.
_ORDER = (Program.POSTGRES, Program.REDIS, Program.PRODUCT, Program.ORDER, Program.GATEWAY, Program.NGINX)


@dataclass(frozen=True, slots=True)
class _Part:
    """One container with what it reads on the host."""

    spec: Confined
    image: PulledImage
    inputs: tuple[TextFile, ...]
    secrets: tuple[PasswordFile, ...]
    volume: Volume | None


def section(
    containers: Containers,
    mark: Mark,
    facts: Facts,
    images: Mapping[str, PulledImage],
    networks: Sequence[DockerNetwork],
) -> Section:
    """Return the secrets, the files, the project's file, and the containers."""
    parts = list(_parts(containers, mark, facts, images, networks))
    secrets = {secret.path.name: secret for part in parts for secret in part.secrets}
    volumes = [part.volume for part in parts if part.volume]
    ordered, alone = (
        compose.render(
            mark,
            PROJECT,
            [(part.spec, digest(part.inputs)) for part in parts],
            networks,
            volumes,
            {name: secret.path for name, secret in secrets.items()},
            ordered=order,
        )
        for order in (True, False)
    )
    file = TextFile(mark.settings / "compose.yaml", ordered)
    on = tuple(network.identity for network in networks)
    resources: list[Resource] = [Directory(mark.settings / "secrets"), *secrets.values()]
    for part in parts:
        if part.inputs:
            resources += [Directory(part.inputs[0].path.parent), *part.inputs]
    resources += [*volumes, file]
    everybody = tuple(part.spec.name for part in parts)
    for part in parts:
        stands = (*on, *((part.volume.identity,) if part.volume else ()), part.image.identity)
        resources.append(Container(PROJECT, part.spec, file, part.inputs, part.secrets, stands, everybody, alone))
    return Section(
        "The shop",
        "A container for each replica, at its planned address and by the names of the plan, started by Compose when "
        "those it needs are healthy. Each may use half a processor and a fixed part of memory, has no rights, and "
        "writes in one place of its own, in memory. Passwords are files that one user can read.",
        tuple(resources),
    )


def _parts(
    containers: Containers,
    mark: Mark,
    facts: Facts,
    images: Mapping[str, PulledImage],
    networks: Sequence[DockerNetwork],
) -> Iterator[_Part]:
    plan, daemon = containers.plan, networks[0].daemon
    for kind in _ORDER:
        for service in plan.services:
            if service.program is kind:
                name = _IMAGES.get(kind, kind.value)
                for replica in service.replicas:
                    yield _part(containers, mark, service, replica, images[name], facts.images[name].user, daemon)


def _part(
    containers: Containers, mark: Mark, service: Service, replica: Replica, image: PulledImage, user: int, daemon: str
) -> _Part:
    plan = containers.plan
    site = Site(str(replica.ip), Path(compose.ROOM), _SETTINGS, _SECRETS / _PASSWORD)
    own = mark.settings / replica.name
    is_database = service.program is Program.POSTGRES
    inputs = _inputs(containers, mark, service, replica, site, own)
    secrets = _secrets(plan, mark, service, user)
    volume = Volume(PROJECT, replica.name, daemon) if is_database else None
    environment = {**shop.environment(plan, service, replica, site), **_settings(service)}
    spec = Confined(
        name=replica.name,
        image=image.reference,
        command=_command(service, site),
        environment=tuple(sorted(environment.items())),
        memberships=tuple(
            Membership(item.tier, item.address.ip, _names(plan, replica) if item.native else ())
            for item in containers.attachments[replica.name]
        ),
        mounts=(
            *(Mount(str(file.path), str(_SETTINGS / file.path.name)) for file in inputs),
            *((Mount(volume.key, _DATA, volume=True),) if volume else ()),
        ),
        secrets=tuple((secret.path.name, inside) for secret, inside in secrets),
        room=f"uid={user},gid={user},mode=700,size={_ROOM_SIZE}",
        ports=tuple(
            (entry.port, service.port) for entry in plan.published if _first_of(plan, entry.service) == replica
        ),
        memory=_DATABASE_MEMORY if is_database else _MEMORY,
        cpus=_CPUS,
        pids=_DATABASE_PIDS if is_database else _PIDS,
        after=tuple(
            item.name
            for flow in plan.flows
            if flow.source == service.name
            for item in plan.service(flow.target).replicas
            if _ORDER.index(plan.service(flow.target).program) < _ORDER.index(service.program)
        ),
        pace=_pace(plan),
    )
    return _Part(spec, image, inputs, tuple(secret for secret, _ in secrets), volume)


def _pace(plan: Plan) -> Pace:
    """Return how often health is asked for: each time costs a process, which slow hosts have less of."""
    ready = plan.timeouts.ready
    return Pace(first=ready / 60, then=ready / 6, starting=ready)


def _names(plan: Plan, replica: Replica) -> tuple[str, ...]:
    """Return the names of a replica in its own network, besides those that Docker gives it."""
    return (replica.service, f"{replica.service}.{plan.domain}", f"{replica.name}.{plan.domain}")


def _first_of(plan: Plan, service: str) -> Replica:
    """Return the replica that a port leads to: Docker spreads nothing."""
    return plan.service(service).replicas[0]


def _settings(service: Service) -> dict[str, str]:
    if service.program is not Program.POSTGRES:
        return {}
    return {"DATABASE_NAME": shop.DATABASE, "DATABASE_SCRIPT": str(_SETTINGS / "database.sql")}


def _command(service: Service, site: Site) -> tuple[str, ...]:
    match service.program:
        case Program.REDIS:
            return ("redis-server", *shop.redis_options(service, site))
        case Program.POSTGRES:
            return shop.postgres_options(service, site, _SETTINGS / "pg_hba.conf", _SETTINGS / "pg_ident.conf")
        case _:
            return ()


def _inputs(
    containers: Containers, mark: Mark, service: Service, replica: Replica, site: Site, own: Path
) -> tuple[TextFile, ...]:
    plan = containers.plan
    match service.program:
        case Program.NGINX:
            text = shop.edge_config(plan, service, replica, site)
            return (TextFile(own / "nginx.conf", f"# {mark.text}\n{text}"),)
        case Program.POSTGRES:
            access = shop.postgres_access(plan, service, lambda item: containers.address(item, service.tier))
            return (
                TextFile(own / "pg_hba.conf", f"# {mark.text}\n{access}"),
                TextFile(own / "pg_ident.conf", f"# {mark.text}\n{shop.postgres_users('postgres')}"),
                TextFile(own / "database.sql", shop.database_script(lambda role: _SECRETS / role)),
            )
        case _:
            return ()


def _secrets(plan: Plan, mark: Mark, service: Service, user: int) -> list[tuple[PasswordFile, str]]:
    """Return the password files of a container, each with its name inside; a database has those of all roles."""
    top = mark.settings / "secrets"
    if service.program is Program.POSTGRES:
        return [
            # No name of a service has a dot.
            (PasswordFile(top / f"{service.name}.{kind.value}", str(user), _purpose(mark, kind.value)), kind.value)
            for kind in shop.ROLES
        ]
    role = shop.role(service)
    return [(PasswordFile(top / service.name, str(user), _purpose(mark, role)), _PASSWORD)] if role else []


def _purpose(mark: Mark, role: str) -> str:
    """Return what a password is for: who learns one of another phase shall not come in here."""
    return f"{mark.phase} {role}"
