"""Networks and volumes of Docker's, made as Compose makes them, so that Compose takes them for its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network

from provision.docker import Said
from provision.marks import Mark
from provision.resource import Command, Found, Resource, Step
from provision.resources.docker.kernel import BRIDGE_NAME, SILENT, bridge_differs, mend_bridge
from provision.system import NotOurs, System

_ICC = "com.docker.network.bridge.enable_icc"
_MTU = "com.docker.network.driver.mtu"
_PROJECT = "com.docker.compose.project"


@dataclass(frozen=True, slots=True)
class _OfProject(Resource):
    """Something of a Compose project's in Docker: ``key`` is its name in the project, ``daemon`` what it stands on."""

    project: str
    key: str
    daemon: str

    @property
    def name(self) -> str:
        """Its name in Docker."""
        return f"{self.project}_{self.key}"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return (self.daemon,)

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (Command(self._create(mark)),)

    @abstractmethod
    def _create(self, mark: Mark) -> tuple[str, ...]:
        """Return the command that makes it, with our label and those by which Compose takes it for its own."""

    def _labelled(self, mark: Mark, kind: str) -> tuple[str, ...]:
        labels = ("=".join(mark.label), f"{_PROJECT}={self.project}", f"com.docker.compose.{kind}={self.key}")
        return tuple(word for label in sorted(labels) for word in ("--label", label))


@dataclass(frozen=True, slots=True)
class DockerNetwork(_OfProject):
    """A network on a bridge of a given name. Whoever is in it when it must be made anew is taken out, and comes back.

    With ``internal`` it leads nowhere.
    """

    subnet: IPv4Network
    gateway: IPv4Interface
    bridge: str
    mtu: int
    internal: bool

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"Docker network {self.name}"

    @property
    def provides(self) -> tuple[str, ...]:
        """See Resource."""
        return (self.identity, f"link {self.bridge}")

    @property
    def options(self) -> Mapping[str, str]:
        """The options of its driver."""
        return {BRIDGE_NAME: self.bridge, _ICC: "false", _MTU: str(self.mtu)}

    def observe(self, system: System) -> str | None:
        """See Resource."""
        if not system.docker.answers():
            return SILENT
        found = self._found(system)
        if found is not None and not is_ours(found.at("Labels"), system.mark):
            raise NotOurs(system.host, f"a Docker network {self.name}", ("docker", "network", "rm", self.name))
        for other in system.docker.networks():
            # Ours move, or go, by themselves.
            theirs = not is_ours(other.at("Labels"), system.mark)
            if theirs and any(self.subnet.overlaps(item) for item in _subnets(other)):
                name = other.text("Name")
                what = f"Docker network {name} on {', '.join(map(str, _subnets(other)))}, which {self.subnet} meets,"
                raise NotOurs(system.host, what, ("docker", "network", "rm", name))
        if found is None:
            return "is missing"
        return self._differs(found) or bridge_differs(system, self.bridge, self.gateway)

    def prepare(self, system: System) -> None:
        """See Resource: it makes room for another one of ours, which may want its subnet."""
        if system.docker.answers():
            found = self._found(system)
            if found is not None and (self._differs(found) or self.bridge not in system.network.root().links):
                _remove(found.text("Id"), system)

    def apply(self, system: System) -> None:
        """See Resource. Before Docker answered, nobody saw whether it is as planned."""
        system.docker.wait(system.timeouts.ready)
        system.network.forget(None)
        if self.observe(system) is None:
            return
        self.prepare(system)
        if self._found(system) is None:
            system.run(*self._create(system.mark))
            system.network.forget(None)
        else:
            mend_bridge(system, self.bridge, self.gateway)

    def _create(self, mark: Mark) -> tuple[str, ...]:
        """See _OfProject."""
        return (
            *("docker", "network", "create", "--driver", "bridge"),
            *("--subnet", str(self.subnet), "--gateway", str(self.gateway.ip)),
            *(("--internal",) if self.internal else ()),
            *(word for key, value in self.options.items() for word in ("--opt", f"{key}={value}")),
            *self._labelled(mark, "network"),
            self.name,
        )

    def _found(self, system: System) -> Said | None:
        return next((item for item in system.docker.networks() if item.text("Name") == self.name), None)

    def _differs(self, found: Said) -> str | None:
        seen = {
            "driver": found.text("Driver"),
            "subnet": " ".join(map(str, _subnets(found))),
            "gateway": " ".join(item.text("Gateway") for item in found.at("IPAM", "Config").parts()),
            "range": " ".join(item.text("IPRange") for item in found.at("IPAM", "Config").parts()).strip(),
            "internal": found.text("Internal"),
            "IPv6": found.text("EnableIPv6"),
            "attachable": found.text("Attachable"),
            "options": _listed({key: item.text() for key, item in found.items("Options")}),
        }
        planned = {
            "driver": "bridge",
            "subnet": str(self.subnet),
            "gateway": str(self.gateway.ip),
            "range": "",
            "internal": str(self.internal),
            "IPv6": "False",
            "attachable": "False",
            "options": _listed(self.options),
        }
        return next(
            (
                f"{key} is {seen[key] or 'nothing'}, planned {value}"
                for key, value in planned.items()
                if seen[key] != value
            ),
            None,
        )


@dataclass(frozen=True, slots=True)
class Volume(_OfProject):
    """A volume of the local driver: what a container keeps when it is made anew."""

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"Docker volume {self.name}"

    def observe(self, system: System) -> str | None:
        """See Resource."""
        if not system.docker.answers():
            return SILENT
        found = system.docker.find("volumes", self.name)
        if found is None:
            return "is missing"
        if not is_ours(found.at("Labels"), system.mark) or found.text("Driver") != "local" or [*found.items("Options")]:
            # What may be in it is worth more than that it is as planned.
            raise NotOurs(system.host, f"a Docker volume {self.name}", ("docker", "volume", "rm", self.name))
        return None

    def apply(self, system: System) -> None:
        """See Resource."""
        system.docker.wait(system.timeouts.ready)
        if self.observe(system) is not None:
            system.run(*self._create(system.mark))

    def _create(self, mark: Mark) -> tuple[str, ...]:
        """See _OfProject."""
        return ("docker", "volume", "create", *self._labelled(mark, "volume"), self.name)


def _listed(options: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(options.items()))


def is_ours(labels: Said, mark: Mark) -> bool:
    """Whether something carries our label."""
    key, value = mark.label
    return labels.text(key) == value


def discover_networks(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find our networks."""
    if system.docker.answers():
        for item in system.docker.networks():
            if is_ours(item.at("Labels"), system.mark):
                yield Found(f"Docker network {item.text('Name')}", _remover(item.text("Id")))


def discover_volumes(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find our volumes."""
    if system.docker.answers():
        for item in system.docker.volumes():
            if is_ours(item.at("Labels"), system.mark):
                name = item.text("Name")
                yield Found(f"Docker volume {name}", _volume_remover(name))


def _subnets(network: Said) -> tuple[IPv4Network, ...]:
    said = (item.text("Subnet") for item in network.at("IPAM", "Config").parts())
    return tuple(IPv4Network(subnet) for subnet in said if subnet and ":" not in subnet)


def _remover(number: str) -> Callable[[System], None]:
    return lambda system: _remove(number, system)


def _remove(number: str, system: System) -> None:
    """Remove a network; whoever is in it loses it, as `check` then says."""
    found = system.docker.find("networks", number)
    for container, _ in () if found is None else tuple(found.items("Containers")):
        # It may have gone by itself meanwhile.
        system.run("docker", "network", "disconnect", "--force", number, container, check=False)
    system.run("docker", "network", "rm", number)
    system.network.forget(None)


def _volume_remover(name: str) -> Callable[[System], None]:
    def remove(system: System) -> None:
        system.run("docker", "volume", "rm", name)

    return remove
