"""Containers of a Compose project: each is looked at by itself, and made or mended by Compose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from provision import processes
from provision.docker import COMPOSE, Said
from provision.marks import Mark
from provision.resource import Command, Found, Resource, Step
from provision.resources.docker.kernel import SILENT, unplugged
from provision.resources.docker.network import is_ours
from provision.resources.file import TextFile
from provision.resources.secret import PasswordFile, stale
from provision.system import NotOurs, System

#: Labels that Compose writes: its project and the name in there, and a digest of all that it says of this container.
_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"
_HASH = "com.docker.compose.config-hash"
#: Characters of a container's number that are its name, too.
_SHORT = 12
#: Not unless-stopped: a daemon that was killed stops, when it is back, what still runs, and takes that for a wish.
RESTART = "always"
#: What else `docker update` can set, and nobody plans.
_UNPLANNED = (
    *("BlkioWeight", "CpuShares", "CpuPeriod", "CpuQuota", "CpuRealtimePeriod", "CpuRealtimeRuntime"),
    "MemoryReservation",
)
#: Lists, of which "0" is one.
_UNPLANNED_LISTS = ("CpusetCpus", "CpusetMems")
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
        every = system.docker.containers()
        theirs = next((item for item in every if self._is_in_the_way(item, system.mark)), None)
        if theirs is not None:
            raise NotOurs(system.host, f"a container {_name(theirs)}", ("docker", "rm", "--force", _name(theirs)))
        found = self._found(every, system.mark)
        if found is None:
            return "is missing"
        if _name(found) != self.spec.name:
            return f"is called {_name(found)}, planned {self.spec.name}"
        return self._differs(found, system) or _idle(found) or self._cut_off(found, system)

    def prepare(self, system: System) -> None:
        """See Resource: one that reads what has changed stops first; if this run dies, the next one starts it."""
        if system.docker.answers() and self._stale(system):
            found = self._found(system.docker.containers(), system.mark)
            if found is not None and found.text("State", "Running") == "True":
                processes.thaw(found.number("State", "Pid"))
                # The daemon may be about to stop, too.
                system.run("docker", "stop", found.text("Id"), check=False)

    def apply(self, system: System) -> None:
        """See Resource: what only rests is woken; all else is made again, and nothing but this one."""
        system.docker.wait(system.timeouts.ready)
        system.docker.forget()
        every = system.docker.containers()
        found = self._found(every, system.mark)
        system.network.forget(None)
        same = found is not None and _name(found) == self.spec.name and self._differs(found, system) is None
        if same and found is not None and found.text("State", "Running") == "True":
            same = self._cut_off(found, system) is None
        if found is not None and same:
            processes.thaw(found.number("State", "Pid"))
            match found.text("State", "Status"):
                case "paused":
                    system.run("docker", "unpause", self.spec.name)
                    return
                case "running":
                    return
        # Whoever has one of their names, ours or not.
        ours = (item for item in every if is_ours(_labels(item), system.mark))
        there = {_name(item) for item in every} | {_service(item) for item in ours}
        together = self.everybody if there.isdisjoint(self.everybody) else (self.spec.name,)
        anew = found is not None and not same
        # Of several, each waits until those are healthy that it needs.
        words = self._up("--no-deps", *(("--force-recreate",) if anew else ()), *together)
        system.run(*words, extra=system.timeouts.ready)
        system.docker.forget()

    def ready(self, system: System) -> str | None:
        """See Resource: by its own health check."""
        found = self._found(system.docker.containers(), system.mark)
        if found is None:
            return "is missing"
        health = found.text("State", "Health", "Status") or found.text("State", "Status")
        if health == _HEALTHY:
            return None
        # Of a traceback the last line says what it was.
        said = [item.text("Output").strip().rpartition("\n")[2] for item in found.at("State", "Health", "Log").parts()]
        return " ".join((health, *said[-1:], f"(docker logs {self.spec.name})"))

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource: Compose waits until those are healthy that it needs."""
        return (Command(self._up(self.spec.name)),)

    def _up(self, *words: str) -> tuple[str, ...]:
        return (
            *(*COMPOSE, "--file", str(self.file.path), "up", "--detach", "--quiet-pull"),
            *("--pull", "never", "--no-build", *words),
        )

    def _is_in_the_way(self, item: Said, mark: Mark) -> bool:
        """Whether a stranger's container has the name, or is what Compose would take for this one."""
        known = item.text("Config", "Labels", _PROJECT) == self.project and _service(item) == self.spec.name
        return (known or _name(item) == self.spec.name) and not is_ours(_labels(item), mark)

    def _found(self, every: Sequence[Said], mark: Mark) -> Said | None:
        """Return our container of this service, whatever it is called; by its own name if there are more."""
        ours = [item for item in every if is_ours(_labels(item), mark) and _service(item) == self.spec.name]
        return next((item for item in ours if _name(item) == self.spec.name), next(iter(ours), None))

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
            **dict.fromkeys(_UNPLANNED_LISTS, ""),
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
            **{name: limits.text(name) for name in _UNPLANNED_LISTS},
        }
        for what, value in planned.items():
            if seen[what] != value:
                return f"{what}: {_told(seen[what])}, planned {_told(value) or 'none'}"
        return self._environment_differs(config) or self._names_differ(found) or self._made_otherwise(config, system)

    def _cut_off(self, found: Said, system: System) -> str | None:
        """Return what of its network somebody has taken away behind Docker's back."""
        places = [(f"{self.project}_{item.network}", item.address) for item in self.spec.memberships]
        return unplugged(found, places, system)

    def _environment_differs(self, config: Said) -> str | None:
        seen = dict(item.partition("=")[::2] for item in config.texts("Env"))
        for name, value in self.spec.environment:
            if seen.get(name) != value:
                return f"environment: {name} is {seen.get(name, 'not set')}, planned {value}"
        return None

    def _names_differ(self, found: Said) -> str | None:
        # Docker adds the beginning of its number, Compose the name in the project.
        own = {self.spec.name, found.text("Id")[:_SHORT]}
        for item in self.spec.memberships:
            network = f"{self.project}_{item.network}"
            aliases = found.texts("NetworkSettings", "Networks", network, "Aliases")
            seen, planned = _sorted(iter({*aliases} - own)), _sorted(iter({*item.aliases}))
            if seen != planned:
                return f"is called {_told(seen)} in {network}, planned {_told(planned)}"
        return None

    def _made_otherwise(self, config: Said, system: System) -> str | None:
        """Return None if Compose would leave it: it writes on each what it was made from."""
        planned = {system.docker.hashes(text).get(self.spec.name) for text in (self.file.text, self.alone)}
        seen = config.text("Labels", _HASH)
        return None if seen in planned else "was made with other settings than those of its project"


def _name(found: Said) -> str:
    return found.text("Name").removeprefix("/")


def _service(found: Said) -> str:
    return found.text("Config", "Labels", _SERVICE)


def _labels(found: Said) -> Said:
    return found.at("Config", "Labels")


def states(system: System) -> Mapping[str, str]:
    """Return what each container of ours does: its health if it runs and has any, else its state."""
    if not system.docker.answers():
        return {}
    return {_service(item): _word(item) for item in system.docker.containers() if is_ours(_labels(item), system.mark)}


def discover(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find our containers. One that is called otherwise than planned stands for the planned one if that is missing."""
    if not system.docker.answers():
        return
    ours = [item for item in system.docker.containers() if is_ours(_labels(item), system.mark)]
    names = {_name(item) for item in ours}
    standing: set[str] = set()
    for item in ours:
        name = _name(item)
        # A second one is what a killed Compose leaves that was about to put it in the first one's place.
        if name != _service(item) and _service(item) not in names | standing:
            name = _service(item)
        standing.add(name)
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
    return processes.halted(found.number("State", "Pid"))


def _stopper(number: str) -> Callable[[System], None]:
    def stop(system: System) -> None:
        found = system.docker.find("containers", number, "/json")
        if found is not None:
            processes.thaw(found.number("State", "Pid"))

    return stop


def _remover(number: str) -> Callable[[System], None]:
    def remove(system: System) -> None:
        system.run("docker", "rm", "--force", "--volumes", number)
        system.docker.forget()

    return remove


def _sorted(words: Iterator[str]) -> tuple[str, ...]:
    return tuple(sorted(words))


def _told(value: object) -> str:
    return (" ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)
