"""Labs of virtual machines that Vagrant made: the interface of ``base``, without asking Vagrant again.

Vagrant writes down each machine's identity below ``.vagrant``; that, one ssh-config and the hypervisor's own commands
are all that is used once the lab was found.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType

from underlay import durable, process
from underlay.errors import InputError, NotReady, Problem
from underlay.hosts.provisioning import tell
from underlay.hosts.vagrant import environment as vmenv
from underlay.hosts.vagrant import handover, ssh
from underlay.hosts.vagrant.handover import EMULATED, PLAN, SECRET
from underlay.hosts.vagrant.hypervisors import Hypervisor, hypervisors
from underlay.hosts.vagrant.sockets import make_sockets, socket_directory
from underlay.process import Completed
from underlay.repository import REPOSITORY
from underlay.topology import Host, Plan, Timeouts, load_plan, render_plan
from underlay.wait import NotYet, until

#: Seconds until a machine that was powered on runs commands: software emulation of two on two cores takes a minute.
_BOOT_S = 240.0
_UP = "bring it up: ./lab vagrant up"
#: Seconds to close a shared connection.
_CLOSE_S = 5.0
_SSH_CONFIG = "ssh-config"
#: How often a machine that boots is asked.
_EACH_S = 0.5


def dot_directory() -> Path:
    """Return where Vagrant keeps what it knows of this checkout's machines."""
    return Path(os.environ.get("VAGRANT_DOTFILE_PATH") or REPOSITORY / ".vagrant").absolute()


def own_directory() -> Path:
    """Return where we keep what belongs to this checkout's machines: plan, secret, ssh-config."""
    return dot_directory() / "underlay"


def handover_directory() -> Path:
    """Return where the machines' files lie: in the repository, with which Vagrant copies them."""
    return REPOSITORY / ".handover"


@dataclass(frozen=True, slots=True)
class VagrantHost:
    """A host that is a virtual machine. ``machine`` is the hypervisor's identity of it."""

    _plan: Plan
    _host: Host
    _provider: str
    _machine: str
    _config: Path
    _sockets: Path

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
    def console(self) -> Path | None:
        """The file, on this machine, with what the serial console said."""
        return self._hypervisor.console(self._plan.lab, self.name)

    def argv(self, command: Sequence[str], *, namespace: str | None = None, tty: bool = False) -> tuple[str, ...]:
        """Return the argument list that runs ``command`` there as root."""
        make_sockets(self._sockets)
        term = os.environ.get("TERM", "dumb") if tty else "dumb"
        return vmenv.inside(
            ssh.argv(self._config, self.name, ssh.remote(command, namespace=namespace, term=term), tty=tty)
        )

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float | None = None,
        check: bool = True,
        stdin: str | None = None,
        namespace: str | None = None,
    ) -> Completed:
        """Run ``command`` there to its end; see ``base.Machine``. NotReady when the connection cannot be had."""
        limit = self._plan.timeouts.command if timeout is None else timeout
        where = self.name if namespace is None else f"{self.name}/{namespace}"
        make_sockets(self._sockets)
        line = ssh.remote(command, namespace=namespace, timeout=limit)
        done = process.run(
            vmenv.inside(ssh.argv(self._config, self.name, line)),
            timeout=limit,
            check=False,
            stdin=stdin,
            where=where,
        )
        if done.returncode == ssh.BROKEN:
            own = ssh.own_255(done.stderr)
            if own is None:
                raise NotReady(self._unreachable(done.stderr.strip()))
            done = replace(done, stderr=own)
        # What people see is the command, not how it got there.
        done = replace(done, argv=tuple(command))
        if check and not done.ok:
            raise process.ProgramFailed(done, where)
        return done

    def running(self) -> bool:
        """Whether the machine has power."""
        return self._hypervisor.running(self._machine)

    def power_off(self) -> None:
        """Cut the power: everything on the host stops at once, its disk stays."""
        self._hypervisor.power_off(self._machine)
        self._disconnect()

    def power_on(self) -> None:
        """Boot the host from its disk and wait until its supervisor answers."""
        self._disconnect()
        self._hypervisor.power_on(self._machine)
        until(
            self._answers,
            deadline_s=_BOOT_S,
            what="its boot",
            where=self.name,
            hint=f"its serial console: {self.console}",
            interval=_EACH_S,
        )

    def facts(self) -> Mapping[str, str]:
        """Return kernel, docker ("" when there is none), booted, kind, provider, emulated, and modules of interest."""
        said = self.run(("sh", "-c", _FACTS)).stdout
        found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        docker = found.get("docker", "").removeprefix("Docker version ").split(",")[0].strip()
        emulated = "yes" if self._hypervisor.emulated(self._machine) else "no"
        own = {"kind": "vagrant", "provider": self._provider, "emulated": emulated}
        return MappingProxyType({**own, **found, "docker": docker})

    @property
    def _hypervisor(self) -> Hypervisor:
        return hypervisors(own_directory())[self._provider]

    def _answers(self) -> bool | NotYet:
        try:
            done = self.run(("supervisorctl", "pid"), check=False, timeout=self._plan.timeouts.command)
        except NotReady as error:
            return NotYet(error.problems[0].what)
        return True if done.ok else NotYet(done.stdout.strip() or done.stderr.strip())

    def _disconnect(self) -> None:
        """Drop the shared connection: the machine behind it has gone, which TCP would notice much later."""
        command = ("ssh", "-F", str(self._config), "-O", "exit", self.name)
        process.run(vmenv.inside(command), timeout=self._plan.timeouts.command, check=False, where=self.name)
        (self._sockets / self.name).unlink(missing_ok=True)

    def _unreachable(self, said: str) -> Problem:
        if not self.running():
            return Problem(self.name, f"{self.name} is not running", _UP)
        what = f"no connection to {self.name}: {said or 'ssh ended with exit code 255'}"
        return Problem(self.name, what, f"is it still booting? its serial console: {self.console}")


@dataclass(frozen=True, slots=True)
class VagrantOutside:
    """This machine, on the underlay at the gateway's address."""

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
    def network(self) -> Path | None:
        """The file that the guests' network is mounted on; None if it is the caller's own."""
        return vmenv.network()

    def argv(self, command: Sequence[str], *, namespace: str | None = None, tty: bool = False) -> tuple[str, ...]:
        """Return the argument list that runs ``command`` where the underlay is; InputError with a ``namespace``."""
        del tty  # the caller's terminal is this machine's
        if namespace is not None:
            raise InputError(Problem(self.name, f"there is no namespace `{namespace}` outside", "name a host"))
        return vmenv.inside(command)

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
class VagrantLab:
    """A lab of virtual machines; ``provider`` is Vagrant's name of what runs them, ``machines`` their identities."""

    plan: Plan
    recorded: Plan
    provider: str
    machines: Mapping[str, str]
    config: Path

    @property
    def kind(self) -> str:
        """The kind of its hosts, as `--hosts` names it."""
        return "vagrant"

    @property
    def hosts(self) -> Mapping[str, VagrantHost]:
        """The hosts by name, in the plan's order."""
        sockets = socket_directory(self.machines)
        return MappingProxyType(
            {
                host.name: VagrantHost(self.plan, host, self.provider, self.machines[host.name], self.config, sockets)
                for host in self.plan.hosts
            }
        )

    @property
    def outside(self) -> VagrantOutside:
        """The machine that the tests run on."""
        return VagrantOutside(self.plan)

    def obstacle(self, plan: Plan) -> Problem | None:
        """Say what hosts would have to start anew for, or who is off, whom nobody would tell; see ``base.Lab``."""
        if (anew := handover.moved(self.recorded, plan)) is not None:
            return anew
        off = [host.name for host in self.hosts.values() if not host.running()] if plan != self.recorded else []
        what = f"{', '.join(off)} is off and would not hear of a changed plan"
        return Problem(f"lab {self.recorded.lab}", what, _UP) if off else None

    def take(self, plan: Plan) -> VagrantLab:
        """Put another plan on record and tell every host; see ``base.Lab``."""
        if (problem := self.obstacle(plan)) is not None:
            raise NotReady(problem)
        text = render_plan(plan)
        handover.replan(own_directory(), handover_directory(), text)
        tell(self.hosts.values(), text, (own_directory() / SECRET).read_text())
        return replace(self, plan=plan.patient(EMULATED) if self.plan != self.recorded else plan, recorded=plan)


def find_lab(name: str) -> VagrantLab | None:
    """Return this checkout's lab of virtual machines if it has that name and one of its machines runs.

    Vagrant is asked, once, for the ssh-config of machines that are new. NotReady when it cannot say.
    """
    found = _look(name)
    return found if isinstance(found, VagrantLab) else None


def why_not(name: str) -> Problem | None:
    """Say why there is no such lab of virtual machines; None if there is."""
    found = _look(name)
    return found if isinstance(found, Problem) else None


def _look(name: str) -> VagrantLab | Problem:
    where = f"lab {name}"
    try:
        plan = load_plan(own_directory() / PLAN)
    except InputError:
        return Problem(where, "no virtual machine was made from this checkout", _UP)
    if plan.lab != name:
        return Problem(where, f"the virtual machines of this checkout are of lab {plan.lab}", f"name it: {plan.lab}")
    found = recorded(dot_directory(), [host.name for host in plan.hosts])
    missing = [host.name for host in plan.hosts if host.name not in found]
    if missing:
        return Problem(where, f"{', '.join(missing)} was not made", _UP)
    providers = {provider for provider, _ in found.values()}
    if len(providers) > 1:
        hint = "./lab vagrant destroy -f, then ./lab vagrant up with one of them"
        return Problem(where, f"its machines are of different providers: {', '.join(sorted(providers))}", hint)
    provider = providers.pop()
    machines = MappingProxyType({host: machine for host, (_, machine) in found.items()})
    hypervisor = hypervisors(own_directory()).get(provider)
    if hypervisor is None:
        return Problem(where, f"the provider {provider} is not known here", "use libvirt or virtualbox")
    try:
        running = [host for host, machine in machines.items() if hypervisor.running(machine)]
    except NotReady as error:
        return error.problems[0]  # what ran them has gone; it does not stand in the way of hosts of another kind
    if not running:
        return Problem(where, "none of its machines runs", _UP)
    config = own_directory() / _SSH_CONFIG
    if not _true(config, machines):
        # Imported here: only who found new machines needs it.
        from underlay.hosts.vagrant.cli import client

        text = client().ssh_configuration(plan.timeouts.ready)
        sockets = socket_directory(machines)
        durable.replace(config, ssh.config(text, machines=machines, sockets=sockets, connect_s=plan.timeouts.connect))
    slow = any(hypervisor.emulated(machine) for machine in machines.values())
    return VagrantLab(plan.patient(EMULATED) if slow else plan, plan, provider, machines, config)


def refuse_moved(plan: Plan) -> None:
    """Refuse to put a plan on record for which machines that run would have to start anew; NotReady says so."""
    try:
        before = load_plan(own_directory() / PLAN)
    except InputError:
        return
    problem = handover.moved(before, plan)
    made = recorded(dot_directory(), [host.name for host in before.hosts]) if problem else {}
    known = hypervisors(own_directory())
    if problem and any(provider in known and known[provider].running(machine) for provider, machine in made.values()):
        raise NotReady(problem)


def forget_connections() -> None:
    """Close the shared connections to this checkout's machines, and forget how they are reached: that may change."""
    config = own_directory() / _SSH_CONFIG
    if not config.exists():
        return
    machines = ssh.machines(config.read_text())
    sockets = socket_directory(machines)
    for host in machines:
        if (sockets / host).exists():
            command = vmenv.inside(("ssh", "-F", str(config), "-O", "exit", host))
            process.run(command, timeout=_CLOSE_S, check=False, where=host)
    shutil.rmtree(sockets, ignore_errors=True)
    durable.remove(config)


def recorded(dot: Path, hosts: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return provider and identity of each host that Vagrant has made a machine for."""
    found = {}
    for host in hosts:
        for file in sorted(dot.glob(f"machines/{host}/*/id")):
            if machine := file.read_text().strip():
                found[host] = (file.parent.name, machine)
    return found


_FACTS = """\
echo "kernel=$(uname -r)"
echo "docker=$(docker --version 2>/dev/null)"
echo "booted=$(date -u -d "@$(sed -n 's/^btime //p' /proc/stat)" +%Y-%m-%dT%H:%M:%S+00:00)"
echo "modules=$(for name in br_netfilter ip_vs vxlan overlay; do modprobe -n -q $name && printf '%s ' $name; done)"
"""


def _true(config: Path, machines: Mapping[str, str]) -> bool:
    try:
        return ssh.describes(config.read_text(), machines)
    except FileNotFoundError:
        return False
