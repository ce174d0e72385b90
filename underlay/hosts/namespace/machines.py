"""The interface of ``base`` for namespace hosts: how commands reach them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType

from underlay import process
from underlay.errors import InputError, NotReady, Problem
from underlay.hosts import layout
from underlay.hosts.namespace import power, wire
from underlay.hosts.namespace.processes import Process, alive
from underlay.hosts.namespace.state import LabState, Store
from underlay.hosts.provisioning import tell
from underlay.process import Completed
from underlay.topology import Host, Plan, Timeouts, differences, needing_a_start, parse_plan, render_plan

_ENTER = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
#: nsenter waits outside of the host's pid namespace. When a signal ends it, what it started there is hung up on.
_BOUND = ("/usr/bin/setpriv", "--pdeathsig", "HUP", "--")
_UP = "bring it up: ./lab up"
#: What a plan says of a host that only a virtual machine feels.
_NOT_FELT = (".cpus", ".memory")


def host_argv(pid: int, command: Sequence[str], *, namespace: str | None, tty: bool, term: str) -> tuple[str, ...]:
    """Return the argument list that runs ``command`` in the namespaces of process ``pid``.

    The environment is the host's, not the caller's. With ``tty`` the command gets a terminal of the host's own: the
    caller's is not in the host's /dev/pts, and a shell there could not find out its name or control jobs on it.
    """
    enter = ("nsenter", f"--target={pid}", *_ENTER)
    variables = (f"{name}={value}" for name, value in layout.environment(term).items())
    environment = (*_BOUND, "/usr/bin/env", "-i", "-C", layout.REPOSITORY, *variables)
    inside = tuple(command) if namespace is None else ("ip", "netns", "exec", namespace, *command)
    if tty:
        inside = ("script", "--quiet", "--return", "--command", shlex.join(inside), "/dev/null")
    return (*enter, *environment, *inside)


@dataclass(frozen=True, slots=True)
class NamespaceHost:
    """A host that is a set of namespaces of this machine."""

    _store: Store
    _plan: Plan
    _host: Host

    @property
    def name(self) -> str:
        """The host's name in the plan."""
        return self._host.name

    @property
    def timeouts(self) -> Timeouts:
        """The plan's, with the patience that this kind of machine needs."""
        return self._plan.timeouts

    @property
    def address(self) -> IPv4Address:
        """The address on the underlay."""
        return self._host.address.ip

    @property
    def console(self) -> Path:
        """The file, on this machine, with what the host's supervisor said."""
        return self._store.host_directory(self.name) / "console.log"

    def argv(self, command: Sequence[str], *, namespace: str | None = None, tty: bool = False) -> tuple[str, ...]:
        """Return the argument list that runs ``command`` there; NotReady when the host is off."""
        _refuse_others(self.name)
        term = os.environ.get("TERM", "dumb") if tty else "dumb"
        return host_argv(self._first().pid, command, namespace=namespace, tty=tty, term=term)

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float | None = None,
        check: bool = True,
        stdin: str | None = None,
        namespace: str | None = None,
    ) -> Completed:
        """Run ``command`` there to its end; see ``base.Machine``."""
        return process.run(
            self.argv(command, namespace=namespace),
            timeout=self._plan.timeouts.command if timeout is None else timeout,
            check=check,
            stdin=stdin,
            where=self.name if namespace is None else f"{self.name}/{namespace}",
        )

    def running(self) -> bool:
        """Whether the host's first process runs."""
        first = self._recorded()[1]
        return first is not None and alive(first)

    def power_off(self) -> None:
        """Kill everything on the host at once; returns when it is gone, its port on the underlay too."""
        with self._store.locked(wait_s=self._plan.timeouts.ready):
            state, first = self._recorded()
            power.stop(self._store, state, self.name)
            if first is not None:
                self._store.write(state.with_process(self.name, None))

    def power_on(self) -> None:
        """Start the host on the disk it had, and wait until its supervisor answers."""
        with self._store.locked(wait_s=self._plan.timeouts.ready):
            state, first = self._recorded()
            if first is None or not alive(first):
                first = power.start(self._store, state, self._plan, self._host)
                self._store.write(state.with_process(self.name, first))
        power.wait_ready(self._store, state, self.name, first, deadline_s=self._plan.timeouts.ready)

    def facts(self) -> Mapping[str, str]:
        """Return kernel, docker ("" when there is none), booted (UTC, ISO 8601) and kind."""
        first = self._first()
        docker = self.run(["docker", "--version"], check=False)
        return MappingProxyType(
            {
                "kind": "namespace",
                "kernel": self.run(["uname", "--kernel-release"]).stdout.strip(),
                "docker": docker.stdout.removeprefix("Docker version ").split(",")[0].strip() if docker.ok else "",
                "booted": _started_at(first).isoformat(timespec="seconds"),
            }
        )

    def _recorded(self) -> tuple[LabState, Process | None]:
        state = self._store.read()
        recorded = None if state is None else state.host(self.name)
        if state is None or recorded is None:
            raise NotReady(Problem(self.name, f"the lab {self._store.lab} is not up", _UP))
        return state, recorded.process

    def _first(self) -> Process:
        first = self._recorded()[1]
        if first is None or not alive(first):
            raise NotReady(Problem(self.name, f"{self.name} is not running", _UP))
        return first


@dataclass(frozen=True, slots=True)
class Outside:
    """This machine with its own files, on the underlay at the gateway's address."""

    _store: Store
    _plan: Plan

    @property
    def name(self) -> str:
        """The name used in messages."""
        return "outside"

    @property
    def timeouts(self) -> Timeouts:
        """The plan's, with the patience that this kind of machine needs."""
        return self._plan.timeouts

    @property
    def address(self) -> IPv4Address:
        """The gateway's address."""
        return self._plan.underlay.gateway.ip

    @property
    def network(self) -> Path:
        """The file that the underlay's network namespace is mounted on; NotReady when the lab is down."""
        _refuse_others(self.name)
        if not wire.is_pinned(self._store.pin):
            raise NotReady(Problem(self.name, f"the lab {self._store.lab} is not up", _UP))
        return self._store.pin

    def argv(self, command: Sequence[str], *, namespace: str | None = None, tty: bool = False) -> tuple[str, ...]:
        """Return the argument list that runs ``command`` on the underlay; ``tty`` needs nothing here.

        InputError with a ``namespace``: there are none; NotReady when the lab is down.
        """
        del tty  # the caller's terminal is this machine's
        if namespace is not None:
            raise InputError(Problem(self.name, f"there is no namespace `{namespace}` outside", "name a host"))
        return (*wire.enter_argv(self.network), *command)

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float | None = None,
        check: bool = True,
        stdin: str | None = None,
        namespace: str | None = None,
    ) -> Completed:
        """Run ``command`` there to its end; see ``base.Machine``."""
        return process.run(
            self.argv(command, namespace=namespace),
            timeout=self._plan.timeouts.command if timeout is None else timeout,
            check=check,
            stdin=stdin,
            where=self.name,
        )


@dataclass(frozen=True, slots=True)
class NamespaceLab:
    """A lab of namespace hosts."""

    store: Store
    plan: Plan

    @property
    def kind(self) -> str:
        """The kind of its hosts, as `--hosts` names it."""
        return "namespace"

    @property
    def recorded(self) -> Plan:
        """The plan on record: these hosts need no patience."""
        return self.plan

    @property
    def hosts(self) -> Mapping[str, NamespaceHost]:
        """The hosts by name, in the plan's order."""
        return MappingProxyType({host.name: NamespaceHost(self.store, self.plan, host) for host in self.plan.hosts})

    @property
    def outside(self) -> Outside:
        """The machine that the tests run on, at the underlay's gateway address."""
        return Outside(self.store, self.plan)

    def obstacle(self, plan: Plan) -> Problem | None:
        """Say what hosts would have to start anew for; see ``base.Lab``."""
        return _obstacle(self._state(), plan)

    def take(self, plan: Plan) -> NamespaceLab:
        """Put another plan on record and tell every host that is on; see ``base.Lab``. One that is off starts with it.

        NotReady as well when another command is changing the lab.
        """
        text = render_plan(plan)
        # What is on record, and what hosts were told, may not come apart between two that change it.
        with self.store.locked():
            state = self._state()
            if (problem := _obstacle(state, plan)) is not None:
                raise NotReady(problem)
            if text != state.plan_text:
                self.store.write(replace(state, plan_text=text))
            changed = NamespaceLab(self.store, plan)
            tell(changed.hosts.values(), text, self.store.secret())
        return changed

    def _state(self) -> LabState:
        state = self.store.read()
        if state is None:
            raise NotReady(Problem(f"lab {self.store.lab}", "it is not up", _UP))
        return state


def _obstacle(state: LabState, plan: Plan) -> Problem | None:
    where = f"lab {state.lab}"
    before = parse_plan(state.plan_text, where)
    if _started_with(before, state) == _started_with(plan, state):
        return None
    keys = [key for key in needing_a_start(differences(before, plan)) if not key.endswith(_NOT_FELT)]
    what = f"its hosts must start anew for what the plan changes: {', '.join(keys)}"
    return Problem(where, what, "bring it up with the changed plan: ./lab up")


def _started_with(plan: Plan, state: LabState) -> Mapping[str, str]:
    image, repository = Path(state.image), Path(state.repository)
    return {host.name: power.host_digest(plan, host, image, repository) for host in plan.hosts}


def _refuse_others(where: str) -> None:
    """Raise NotReady unless this is root: nobody else may enter the namespaces of a lab (setns(2))."""
    if os.geteuid() != 0:
        raise NotReady(Problem(where, "only root can run commands there", "run it as root (sudo)"))


def _started_at(first: Process) -> datetime:
    # /proc/stat gives the machine's boot in whole seconds, so this is right to about a second.
    lines = Path("/proc/stat").read_text().splitlines()
    booted = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    return datetime.fromtimestamp(booted + first.started / os.sysconf("SC_CLK_TCK"), tz=UTC)
