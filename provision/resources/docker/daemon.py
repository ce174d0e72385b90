"""Docker's daemon, and what it leaves in the kernel when it has gone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from provision import processes
from provision.marks import Mark
from provision.resource import Found, Resource, Step
from provision.resources.docker import container, network
from provision.resources.program import Awaited
from provision.resources.rules import OF_DOCKER, Jump, Saved, Table, read, restore, target_of
from provision.supervisor import CONFIG_DIR
from provision.system import NotOurs, System
from underlay.topology.docker import BRIDGES

#: What the supervisor calls the daemon.
NAME = "docker"
#: The link of Docker's own default bridge.
BRIDGE = "docker0"
_LEDGER = "docker leavings"
_NOTHING, _SOMETHING = "nothing", "something"
#: The chain that is for people, and what the daemon itself puts there.
PEOPLE, PEOPLES_END = "DOCKER-USER", "-j RETURN"
#: What it writes about its own bridge, which goes with that.
_OF_BRIDGE = re.compile(
    rf"-o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    rf"|-i {BRIDGE} (! )?-o {BRIDGE} -j (ACCEPT|DROP)|-s \S+ ! -o {BRIDGE} -j MASQUERADE"
)


@dataclass(frozen=True, slots=True)
class Daemon(Awaited):
    """The daemon, supervised like any other program. One that somebody else runs is left alone."""

    def observe(self, system: System) -> str | None:
        """See Resource."""
        said = self.program.observe(system)
        if said is not None and not _runs(system) and system.docker.answers():
            what = f"a Docker daemon that answers on {system.docker.socket}"
            raise NotOurs(system.host, what, ("systemctl", "disable", "--now", "docker.socket", "docker.service"))
        return said

    def prepare(self, system: System) -> None:
        """See Resource. What is Docker's and goes, or makes room, needs a daemon that still runs."""
        if system.docker.answers():
            self.program.doubt(system)
        else:
            Awaited.prepare(self, system)

    def apply(self, system: System) -> None:
        """See Resource."""
        Awaited.apply(self, system)
        system.docker.forget()


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
    """Have the daemon run for once more, and everything of ours removed that it then shows.

    It starts containers, and nobody knows whether the guard still stands: so nothing passes their bridges meanwhile.
    """
    closed = Table("security", (), _closed())
    closed.load(system)
    if state := system.supervisor.programs().get(NAME):
        processes.thaw(state.pid)
    # A run that was killed may have written its configuration, and no more.
    system.supervisor.reload()
    system.supervisor.add(NAME)
    system.supervisor.start(NAME)
    hint = f"make it whole first, and remove it then: ./lab converge {system.mark.phase}"
    system.docker.wait(system.timeouts.ready, hint)
    for find in (container.discover, network.discover_networks, network.discover_volumes):
        for found in tuple(find(system, frozenset())):
            found.remove(system)
        system.docker.forget()
    Table(closed.table, (), ()).load(system)


def _closed() -> tuple[Jump, ...]:
    """Return rules that drop what comes from a bridge of the phase's networks, and what goes there."""
    every = f"{BRIDGES}+"
    ways = (("INPUT", "-i"), ("FORWARD", "-i"), ("FORWARD", "-o"))
    return tuple(Jump(chain, "DROP", f"{option} {every}") for chain, option in ways)


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
        if BRIDGE in system.network.root().links:
            system.run("ip", "link", "delete", BRIDGE)
            system.network.forget(None)

    system.ledger.let_go(_LEDGER, system.mark.phase, clear)


def _clear(table: str, system: System) -> None:
    """Remove the daemon's rules and chains from one table, in one transaction; what people have put there stays."""
    ours = f'--comment "{system.mark.comment}"'

    def text(seen: Saved) -> str:
        gone = OF_DOCKER & seen.rules.keys()
        if any(ours not in rule and rule != PEOPLES_END for rule in seen.rules.get(PEOPLE, ())):
            gone -= {PEOPLE}
        lines = [
            f"-D {chain} {rule}"
            for chain, rules in seen.rules.items()
            for rule in rules
            if chain not in gone and (target_of(rule) in gone or _OF_BRIDGE.fullmatch(rule))
        ]
        lines += [f"-F {name}" for name in sorted(gone)] + [f"-X {name}" for name in sorted(gone)]
        return "\n".join([f"*{table}", *lines, "COMMIT", ""])

    restore(system, table, text)


def _chains(system: System) -> frozenset[str]:
    return OF_DOCKER & read(system.rules.answer(), "filter").rules.keys()


def _runs(system: System) -> bool:
    """Whether the supervisor runs a daemon of ours."""
    state = system.supervisor.programs().get(NAME)
    return bool(state and state.pid) and _is_ours(system)


def _is_ours(system: System) -> bool:
    """Whether the supervisor knows the daemon by a configuration that carries our mark."""
    config = CONFIG_DIR / f"{NAME}.conf"
    return config.exists() and system.mark.text in config.read_text()
