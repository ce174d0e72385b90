"""Docker's daemon, and what it leaves in the kernel when it has gone."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from provision import processes
from provision.marks import Mark
from provision.resource import Await, Found, Resource, Step
from provision.resources.docker import container, network
from provision.resources.program import Program
from provision.supervisor import CONFIG_DIR
from provision.system import NotOurs, System

#: What the supervisor calls the daemon.
NAME = "docker"
#: The link of Docker's own default bridge.
BRIDGE = "docker0"
_LEDGER = "docker leavings"
_NOTHING, _SOMETHING = "nothing", "something"
#: The chains that a daemon makes (moby, daemon/libnetwork), of this version and of later ones.
_CHAINS = frozenset(
    (
        "DOCKER",
        "DOCKER-USER",
        "DOCKER-FORWARD",
        "DOCKER-BRIDGE",
        "DOCKER-CT",
        "DOCKER-INTERNAL",
        "DOCKER-INGRESS",
        "DOCKER-ISOLATION-STAGE-1",
        "DOCKER-ISOLATION-STAGE-2",
    )
)
#: What the daemon itself puts into the chain that is for people.
_OWN_RULE = "-j RETURN"


@dataclass(frozen=True, slots=True)
class Daemon(Resource):
    """The daemon, supervised like any other program. One that somebody else runs is left alone."""

    program: Program

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
        said = self.program.observe(system)
        if said is not None and system.docker.answers() and not _runs(system):
            what = f"a Docker daemon that answers on {system.docker.socket}"
            raise NotOurs(system.host, what, ("systemctl", "disable", "--now", "docker.socket", "docker.service"))
        return said

    def prepare(self, system: System) -> None:
        """See Resource."""
        self.program.prepare(system)

    def apply(self, system: System) -> None:
        """See Resource: what comes next speaks to it."""
        self.program.apply(system)
        system.docker.wait(system.timeouts.ready)

    def ready(self, system: System) -> str | None:
        """See Resource."""
        return None if system.docker.answers() else "Docker does not answer"

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (*self.program.say(mark), Await(("docker", "version")))


@dataclass(frozen=True, slots=True)
class Leavings(Resource):
    """What the daemon makes in the kernel for itself and leaves there: its default bridge, its chains, its jumps.

    It carries no mark of ours. So it is written down, before the daemon first starts, whether there was any of it; if
    not, it goes when the phase does.
    """

    @property
    def identity(self) -> str:
        """See Resource."""
        return "Docker's own chains and bridge"

    @property
    def notes(self) -> bool:
        """See Resource."""
        return True

    def note(self, system: System) -> None:
        """See Resource."""
        before = _SOMETHING if _chains(system) or BRIDGE in system.network.root().links else _NOTHING
        system.ledger.hold(_LEDGER, before, system.mark.phase)

    def observe(self, system: System) -> str | None:
        """See Resource."""
        held = system.ledger.held(system.mark.phase)
        return None if _LEDGER in held else "whether there were any before is not written down"

    def apply(self, system: System) -> None:
        """See Resource."""
        self.note(system)

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource: the script begins with it."""
        return ()


def discover_hidden(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find what a daemon of ours that does not run keeps, when all of it shall go: nobody can see what that is."""
    if not wanted and _is_ours(system) and not system.docker.answers():
        yield Found("what Docker keeps on the disk", _clear_hidden)


def _clear_hidden(system: System) -> None:
    """Have the daemon run for once more, and everything of ours removed that it then shows."""
    if state := system.supervisor.programs().get(NAME):
        processes.thaw(state.pid)
    system.supervisor.start(NAME)
    system.docker.wait(system.timeouts.ready)
    system.containers.forget()
    for find in (container.discover, network.discover_networks, network.discover_volumes):
        for found in tuple(find(system, frozenset())):
            found.remove(system)


def discover(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find whether they go with the phase."""
    if _LEDGER in system.ledger.held(system.mark.phase):
        yield Found(Leavings().identity, _remove)


def _remove(system: System) -> None:
    def clear(before: str) -> None:
        if before != _NOTHING:
            return
        for table in ("filter", "nat"):
            _clear(table, system)
        system.rules.forget()
        if BRIDGE in system.network.root().links:
            system.run("ip", "link", "delete", BRIDGE)
            system.network.forget(None)

    system.ledger.let_go(_LEDGER, system.mark.phase, clear)


def _clear(table: str, system: System) -> None:
    """Remove the daemon's rules and chains from one table, in one transaction; rules of people in them stay."""
    rules = [line.removeprefix("-A ") for line in system.run("iptables-save", "--table", table).stdout.splitlines()
             if line.startswith("-A ")]  # fmt: skip
    chains, ours = _chains(system, table), f'--comment "{system.mark.comment}"'
    kept = {
        rule.split(" ", 1)[0]
        for rule in rules
        if rule.split(" ", 1)[0] == "DOCKER-USER" and not rule.endswith(_OWN_RULE) and ours not in rule
    }
    gone = chains - kept
    lines = [
        f"-D {rule}"
        for rule in rules
        if rule.split(" ", 1)[0] not in gone and (_target(rule) in gone or BRIDGE in shlex.split(rule))
    ]
    lines += [f"-F {name}" for name in sorted(gone)] + [f"-X {name}" for name in sorted(gone)]
    text = "\n".join([f"*{table}", *lines, "COMMIT", ""])
    system.run("iptables-restore", "--noflush", "--wait", str(int(system.timeouts.command)), stdin=text)


def _target(rule: str) -> str:
    words = shlex.split(rule)
    return words[words.index("-j") + 1] if "-j" in words else ""


def _chains(system: System, table: str = "filter") -> frozenset[str]:
    said = system.run("iptables-save", "--table", table).stdout.splitlines()
    return frozenset(line[1:].split()[0] for line in said if line.startswith(":")) & _CHAINS


def _runs(system: System) -> bool:
    """Whether the supervisor runs a daemon of ours."""
    state = system.supervisor.programs().get(NAME)
    return bool(state and state.pid) and _is_ours(system)


def _is_ours(system: System) -> bool:
    """Whether the supervisor knows the daemon by a configuration that carries our mark."""
    config = CONFIG_DIR / f"{NAME}.conf"
    return config.exists() and system.mark.text in config.read_text()
