"""Containers of a Compose project: each is looked at by itself, and made or mended by Compose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from provision import processes
from provision.docker import Said
from provision.marks import Mark
from provision.resource import Command, Found, Resource, Step
from provision.resources.docker.network import SILENT, is_ours
from provision.resources.file import TextFile
from provision.resources.secret import PasswordFile, stale
from provision.system import NotOurs, System

#: Labels that Compose writes: the name in the project, and a digest of all that it says of this container.
_SERVICE, _HASH = "com.docker.compose.service", "com.docker.compose.config-hash"
#: Not unless-stopped: a daemon that was killed stops, when it is back, what still runs, and takes that for a wish.
RESTART = "always"
#: What else `docker update` can set, and nobody plans.
_UNPLANNED = (
    *("BlkioWeight", "CpuShares", "CpuPeriod", "CpuQuota", "CpuRealtimePeriod", "CpuRealtimeRuntime"),
    *("CpusetCpus", "CpusetMems", "MemoryReservation"),
)
#: nanocpus of one processor, and nanoseconds of a second; bytes of a mebibyte.
_NANO, _MEBI = 1_000_000_000, 1024 * 1024
_HEALTHY = "healthy"


@dataclass(frozen=True, slots=True)
class Membership:
    """A container's address in one network of the project, and the names that it has there besides its own."""

    network: str
    address: IPv4Address
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mount:
    """What is mounted: a file of the host, read-only, or (with ``volume``) a volume of the project by its key."""

    source: str
    target: str
    volume: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a container's health is asked for, in seconds: when it has started, and afterwards.

    Each answer may take as long as the time between two. Three bad ones in a row make a container unhealthy, once so
    many seconds (``starting``) have passed since its start. What is asked, the image says.
    """

    first: float
    then: float
    starting: float

    @property
    def retries(self) -> int:
        """Bad answers in a row until it is unhealthy."""
        return 3


@dataclass(frozen=True, slots=True)
class Confined:
    """What a container of the project is, as far as people and the kernel see it. ``memory`` is in MiB.

    ``secrets`` are the project's, by the name that they have inside. ``ports`` are pairs: the host's, the container's.
    """

    name: str
    image: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    memberships: tuple[Membership, ...]
    mounts: tuple[Mount, ...]
    secrets: tuple[tuple[str, str], ...]
    room: str
    ports: tuple[tuple[int, int], ...]
    memory: int
    cpus: float
    pids: int
    after: tuple[str, ...]
    pace: Pace


@dataclass(frozen=True, slots=True)
class Container(Resource):
    """One container. ``file`` is the project's; ``inputs`` and ``secrets`` are what the container reads.

    If one of these is not as planned, nobody knows what the container has read, and it is made again. ``everybody`` are
    the names of all containers of the project: when all are missing, they are made together. ``alone`` is the text of
    the same project without any order: that is what Compose makes one of that is made by itself.
    """

    project: str
    spec: Confined
    file: TextFile
    inputs: tuple[TextFile, ...]
    secrets: tuple[PasswordFile, ...]
    on: tuple[str, ...]
    everybody: tuple[str, ...]
    alone: str

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"container {self.spec.name}"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return (*self.on, self.file.identity, *(item.identity for item in (*self.inputs, *self.secrets)))

    def observe(self, system: System) -> str | None:
        """See Resource."""
        if not system.docker.answers():
            return SILENT
        if stale := self._stale(system):
            return stale
        every = system.containers.answer()
        named = next((item for item in every if item.text("Name") == f"/{self.spec.name}"), None)
        found = self._found(every, system.mark)
        if named is not None and named != found:
            raise NotOurs(system.host, f"a container {self.spec.name}", ("docker", "rm", "--force", self.spec.name))
        if found is None:
            return "is missing"
        if named is None:
            return f"is called {found.text('Name').removeprefix('/')}, planned {self.spec.name}"
        return self._differs(found, system) or _idle(found)

    def prepare(self, system: System) -> None:
        """See Resource: one that reads what has changed stops first; if this run dies, the next one starts it."""
        if system.docker.answers() and self._stale(system):
            found = self._found(system.containers.answer(), system.mark)
            if found is not None and found.text("State", "Running") == "True":
                processes.thaw(found.number("State", "Pid"))
                system.run("docker", "stop", found.text("Id"))

    def apply(self, system: System) -> None:
        """See Resource: what only rests is woken; all else is made again, and nothing but this one."""
        system.docker.wait(system.timeouts.ready)
        system.containers.forget()
        every = system.containers.answer()
        found = self._found(every, system.mark)
        same = found is not None and found.text("Name") == f"/{self.spec.name}" and self._differs(found, system) is None
        if found is not None and same:
            processes.thaw(found.number("State", "Pid"))
            match found.text("State", "Status"):
                case "paused":
                    system.run("docker", "unpause", self.spec.name)
                    return
                case "running":
                    return
        # Whoever has one of their names, ours or not.
        there = {item.text("Name").removeprefix("/") for item in every}
        there |= {item.text("Config", "Labels", _SERVICE) for item in every if is_ours(_labels(item), system.mark)}
        together = self.everybody if there.isdisjoint(self.everybody) else (self.spec.name,)
        anew = found is not None and not same
        system.run(*self._up("--no-deps", *(("--force-recreate",) if anew else ()), *together))
        system.containers.forget()

    def ready(self, system: System) -> str | None:
        """See Resource: by its own health check."""
        found = self._found(system.containers.answer(), system.mark)
        if found is None:
            return "is missing"
        health = found.text("State", "Health", "Status") or found.text("State", "Status")
        if health == _HEALTHY:
            return None
        said = [item.text("Output").strip() for item in found.at("State", "Health", "Log").parts()]
        return " ".join((health, *said[-1:]))

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource: Compose waits until those are healthy that it needs."""
        return (Command(self._up(self.spec.name)),)

    def _up(self, *words: str) -> tuple[str, ...]:
        return (
            *("docker", "compose", "--file", str(self.file.path), "up", "--detach", "--quiet-pull"),
            *("--pull", "never", "--no-build", *words),
        )

    def _found(self, every: Sequence[Said], mark: Mark) -> Said | None:
        """Return our container of this service, by whatever name."""
        ours = (item for item in every if is_ours(_labels(item), mark))
        return next((item for item in ours if item.text("Config", "Labels", _SERVICE) == self.spec.name), None)

    def _stale(self, system: System) -> str | None:
        return stale((*self.inputs, *self.secrets), system)

    def _differs(self, found: Said, system: System) -> str | None:
        """Return what of it is not as planned.

        What can be changed while it is there is asked for by itself; whatever else it was made with, Compose knows.
        """
        spec, config, limits = self.spec, found.at("Config"), found.at("HostConfig")
        planned: Mapping[str, object] = {
            "image": spec.image,
            "memory": spec.memory * _MEBI,
            "memory with swap": spec.memory * _MEBI,
            "processors": round(spec.cpus * _NANO),
            "processes at most": spec.pids,
            "restart policy": RESTART,
            "networks": _sorted(f"{self.project}_{item.network} {item.address}" for item in spec.memberships),
            **dict.fromkeys(_UNPLANNED, "0"),
        }
        seen: Mapping[str, object] = {
            "image": config.text("Image"),
            "memory": limits.number("Memory"),
            "memory with swap": limits.number("MemorySwap"),
            "processors": limits.number("NanoCpus"),
            "processes at most": limits.number("PidsLimit"),
            "restart policy": limits.text("RestartPolicy", "Name"),
            "networks": _sorted(
                f"{name} {item.text('IPAMConfig', 'IPv4Address')}"
                for name, item in found.items("NetworkSettings", "Networks")
            ),
            **{name: limits.text(name) or "0" for name in _UNPLANNED},
        }
        for what, value in planned.items():
            if seen[what] != value:
                return f"{what}: {_told(seen[what])}, planned {_told(value)}"
        return self._environment_differs(config) or self._names_differ(found) or self._made_otherwise(config, system)

    def _environment_differs(self, config: Said) -> str | None:
        seen = dict(item.partition("=")[::2] for item in config.texts("Env"))
        for name, value in self.spec.environment:
            if seen.get(name) != value:
                return f"environment: {name} is {seen.get(name, 'not set')}, planned {value}"
        return None

    def _names_differ(self, found: Said) -> str | None:
        for item in self.spec.memberships:
            network = f"{self.project}_{item.network}"
            lacking = sorted({*item.aliases} - {*found.texts("NetworkSettings", "Networks", network, "Aliases")})
            if lacking:
                return f"is not called {lacking[0]} in {network}"
        return None

    def _made_otherwise(self, config: Said, system: System) -> str | None:
        """Return None if Compose would leave it: it writes on each what it was made from."""
        planned = {system.docker.hashes(text).get(self.spec.name) for text in (self.file.text, self.alone)}
        seen = config.text("Labels", _HASH)
        return None if seen in planned else "was made with other settings than those of its project"


def _labels(found: Said) -> Said:
    return found.at("Config", "Labels")


def states(system: System) -> Mapping[str, str]:
    """Return what each container of ours does: its health if it runs and has any, else its state."""
    if not system.docker.answers():
        return {}
    return {
        item.text("Config", "Labels", _SERVICE): _word(item)
        for item in system.containers.answer()
        if is_ours(_labels(item), system.mark)
    }


def discover(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find our containers. One that is called otherwise than planned stands for the planned one."""
    if not system.docker.answers():
        return
    for item in system.containers.answer():
        if is_ours(_labels(item), system.mark):
            name = item.text("Config", "Labels", _SERVICE) or item.text("Name").removeprefix("/")
            yield Found(f"container {name}", _remover(item.text("Id")), _stopper(item.text("Id")))


def _word(found: Said) -> str:
    if processes.frozen(found.number("State", "Pid")):
        return "frozen"
    status, health = found.text("State", "Status"), found.text("State", "Health", "Status")
    return health if status == "running" and health not in {"", _HEALTHY} else status


def _idle(found: Said) -> str | None:
    """Return why it does not work: stopped, paused, or frozen by a signal."""
    status = found.text("State", "Status")
    if status != "running":
        code = f", exit code {found.number('State', 'ExitCode')}" if status == "exited" else ""
        return f"is {status}{code}"
    halted = processes.frozen(found.number("State", "Pid"))
    return f"is frozen: a signal has stopped {', '.join(map(str, halted))}" if halted else None


def _stopper(number: str) -> Callable[[System], None]:
    def stop(system: System) -> None:
        found = system.docker.find("containers", number, "/json")
        if found is not None:
            processes.thaw(found.number("State", "Pid"))

    return stop


def _remover(number: str) -> Callable[[System], None]:
    def remove(system: System) -> None:
        system.run("docker", "rm", "--force", "--volumes", number)
        system.containers.forget()

    return remove


def _sorted(words: Iterator[str]) -> tuple[str, ...]:
    return tuple(sorted(words))


def _told(value: object) -> str:
    return (" ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)
