"""Programs that supervisord looks after, each in its network namespace and under a user of its own."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from provision import processes
from provision.kernel.network import NETNS_DIR, is_namespace
from provision.marks import Mark
from provision.resource import Await, Background, Command, Found, Resource, Step, Write
from provision.resources.file import TextFile, digest, marked
from provision.resources.secret import DerivedFile, stale
from provision.resources.user import belonging_to
from provision.supervisor import CONFIG_DIR, ProgramState
from provision.system import System
from underlay import durable
from underlay.repository import REPOSITORY
from underlay.wait import NotYet, until

_RUN_AS = REPOSITORY / "provision" / "run-as"
LOG_DIR = Path("/var/log/supervisor")
_ALIVE = ("RUNNING", "STARTING")
#: Seconds between two questions to a program that starts.
_SLOWEST_S = 0.2


@dataclass(frozen=True, slots=True)
class Probe:
    """How a program shows that it serves: a TCP connection or, with ``path``, a GET that is answered with 200."""

    address: IPv4Address
    port: int
    path: str | None = None

    def ask(self, timeout: float) -> str | None:
        """Return None if it serves, else what was seen; ``timeout`` in seconds."""
        place = f"{self.address}:{self.port}"
        if self.path is None:
            try:
                socket.create_connection((str(self.address), self.port), timeout).close()
            except OSError as error:
                return f"{place}: {error}"
            return None
        import http.client  # slow to load, and only who waits for programs asks

        connection = http.client.HTTPConnection(str(self.address), self.port, timeout=timeout)
        try:
            connection.request("GET", self.path)
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace").strip()
        except (OSError, http.client.HTTPException) as error:
            return f"{place}{self.path}: {error}"
        finally:
            connection.close()
        return None if answer.status == http.HTTPStatus.OK else f"{place}{self.path}: {answer.status} {body}"


@dataclass(frozen=True, slots=True)
class Program(Resource):
    """A supervised program.

    ``namespace`` None runs it in the host's own network namespace. ``inputs`` and ``secrets`` are the files that it
    reads when it starts: if one of them is not as planned, nobody knows what the program has read, and it is started
    again. ``user`` "root" leaves it root. ``on`` names what it stands on besides its namespace, such as the link in
    there.
    """

    name: str
    namespace: str | None
    user: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    directory: str = "/"
    inputs: tuple[TextFile, ...] = ()
    secrets: tuple[DerivedFile, ...] = ()
    probe: Probe | None = None
    on: tuple[str, ...] = ()
    stop_signal: str = "TERM"
    stop_wait: int = 10

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"program {self.name}"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        place = (f"namespace {self.namespace}",) if self.namespace else ()
        return (*place, *self.on, *belonging_to(self.user), *(file.identity for file in (*self.inputs, *self.secrets)))

    @property
    def batched(self) -> bool:
        """See Resource."""
        return False

    def observe(self, system: System) -> str | None:
        """See Resource."""
        difference = self._config(system.mark).observe(system)
        if difference:
            return f"its configuration {difference}"
        if stale := self._stale(system):
            return stale
        state = system.programs.answer().get(self.name)
        if state is None:
            return "is not supervised"
        if state.state not in _ALIVE:
            return f"is {state.state} ({state.description})"
        return self._misplaced(state) or processes.halted(state.pid)

    def prepare(self, system: System) -> None:
        """See Resource: ask a program that cannot stay as it is to stop, so that all of them end at the same time."""
        state = system.supervisor.programs().get(self.name)
        if state is None or state.at_rest:
            return
        # One that a signal has stopped takes no other signal before it goes on.
        processes.thaw(state.pid)
        # Stopped before its files are mended: if this run dies in between, the next one finds it stopped and starts it.
        if self._config(system.mark).observe(system) or self._stale(system) or self._misplaced(state):
            system.supervisor.stop(self.name)

    def doubt(self, system: System) -> None:
        """Have the next run start it again if this one does not get there; it goes on meanwhile."""
        config = self._config(system.mark)
        text = config.text.replace(f"Inputs: {digest(self.inputs)}", "Inputs: in doubt", 1)
        TextFile(config.path, text).apply(system)

    def apply(self, system: System) -> None:
        """See Resource."""
        supervisor = system.supervisor
        config = self._config(system.mark)
        state = supervisor.programs().get(self.name)
        changed = config.observe(system) is not None
        if state and not state.at_rest and (changed or self._misplaced(state) or state.state == "STOPPING"):
            supervisor.stop(self.name)
            supervisor.stopped(self.name)
        if changed:
            supervisor.forget(self.name)
            config.apply(system)
        if changed or state is None:
            supervisor.reload()
            supervisor.add(self.name)
        supervisor.start(self.name)

    def ready(self, system: System) -> str | None:
        """See Resource: ask as a client would."""
        said = self.probe.ask(system.timeouts.connect) if self.probe else None
        if said is None:
            return None
        state = system.programs.answer().get(self.name)
        return f"{said} ({state.state.lower() if state else 'not supervised'})"

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        config = self._config(mark)
        return (
            Write(str(config.path), config.text),
            Command(("supervisorctl", "update", self.name)),
            Background(("supervisorctl", "start", self.name)),
        )

    def _stale(self, system: System) -> str | None:
        return stale((*self.inputs, *self.secrets), system)

    def _config(self, mark: Mark) -> TextFile:
        return TextFile(CONFIG_DIR / f"{self.name}.conf", self._text(mark))

    def _text(self, mark: Mark) -> str:
        words = list(self.argv)
        if self.user != "root":
            words = [str(_RUN_AS), self.user, *words]
        if self.namespace:
            words = ["ip", "netns", "exec", self.namespace, *words]
        settings = {
            "command": shlex.join(words).replace("%", "%%"),
            "directory": self.directory,
            "environment": ",".join(f'{key}="{value}"'.replace("%", "%%") for key, value in self.environment),
            "autostart": "false",
            "autorestart": "true",
            "startsecs": "1",
            "startretries": "20",
            "stopsignal": self.stop_signal,
            "stopwaitsecs": str(self.stop_wait),
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": str(LOG_DIR / f"{self.name}.log"),
            "stdout_logfile_maxbytes": "1MB",
            "stdout_logfile_backups": "1",
        }
        head = f"; {mark.text} Inputs: {digest(self.inputs)}\n[program:{self.name}]\n"
        return head + "".join(f"{key}={value}\n" for key, value in settings.items() if value)

    def _misplaced(self, state: ProgramState) -> str | None:
        """Return what is wrong with the namespaces that the process is in.

        A namespace that was deleted lives on, without its name, as long as a process is in it.
        """
        if not state.pid or self.namespace is None or not is_namespace(NETNS_DIR / self.namespace):
            return None if self.namespace is None else f"its namespace {self.namespace} is missing"
        try:
            own = Path(f"/proc/{state.pid}/ns/net").stat()
            mounts = Path(f"/proc/{state.pid}/mountinfo").read_bytes()
        except FileNotFoundError:
            return None
        # `ip netns exec` binds what is in /etc/netns/NAME over /etc; a bound file lives on without its name, as it was.
        if f"/etc/netns/{self.namespace}/resolv.conf//deleted ".encode() in mounts:
            return "goes by a resolv.conf that was deleted"
        named = (NETNS_DIR / self.namespace).stat()
        if (own.st_dev, own.st_ino) in ((named.st_dev, named.st_ino), _own_namespace()):
            return None  # in its own, or just started and about to enter it
        return f"runs in a network namespace that is no longer {self.namespace}"


@dataclass(frozen=True, slots=True)
class Awaited(Resource):
    """A program that what comes next speaks to at once: ``question`` is a command that succeeds when it answers."""

    program: Program
    question: tuple[str, ...]

    @property
    def identity(self) -> str:
        """See Resource."""
        return self.program.identity

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return self.program.needs

    def observe(self, system: System) -> str | None:
        """See Resource."""
        return self.program.observe(system)

    def prepare(self, system: System) -> None:
        """See Resource."""
        self.program.prepare(system)

    def apply(self, system: System) -> None:
        """See Resource."""
        self.program.apply(system)

        def probe() -> bool | NotYet:
            done = system.run(*self.question, check=False)
            return True if done.ok else NotYet((done.stderr or done.stdout).strip())

        name = self.program.name
        hint = f"see what it said: ./lab logs {system.host} {name}"
        limit = system.timeouts.ready
        until(probe, deadline_s=limit, what=f"an answer of {name}", where=system.host, hint=hint, slowest=_SLOWEST_S)

    def ready(self, system: System) -> str | None:
        """See Resource."""
        return self.program.ready(system)

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (*self.program.say(mark), Await(self.question))


def discover(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find the programs whose configuration carries our mark."""
    for path in _configurations(system.mark):
        yield Found(f"program {path.stem}", _remover(path.stem, path), _stopper(path.stem))


def states(system: System) -> Mapping[str, str]:
    """Return what each program of ours does: ``frozen``, or in the supervisor's words (``running``)."""
    seen = system.programs.answer()
    return {path.stem: _word(seen.get(path.stem)) for path in _configurations(system.mark)}


def _word(state: ProgramState | None) -> str:
    if state is None:
        return "not supervised"
    return "frozen" if processes.halted(state.pid) else state.state.lower()


def _configurations(mark: Mark) -> Iterator[Path]:
    return marked(CONFIG_DIR, "*.conf", mark)


def _stopper(name: str) -> Callable[[System], None]:
    def stop(system: System) -> None:
        if state := system.supervisor.programs().get(name):
            processes.thaw(state.pid)
        system.supervisor.stop(name)

    return stop


def _remover(name: str, path: Path) -> Callable[[System], None]:
    def remove(system: System) -> None:
        if name in system.supervisor.programs():
            system.supervisor.stopped(name)
            system.supervisor.forget(name)
        durable.remove(path)
        system.supervisor.reload()
        for log in LOG_DIR.glob(f"{name}.log*"):
            log.unlink()

    return remove


def _own_namespace() -> tuple[int, int]:
    there = os.stat("/proc/self/ns/net")  # noqa: PTH116
    return there.st_dev, there.st_ino
