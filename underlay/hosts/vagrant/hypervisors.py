"""The power switch of a virtual machine, by what runs it. Vagrant itself takes seconds to start, and is not asked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from underlay import process
from underlay.errors import NotReady, Problem
from underlay.hosts.vagrant import environment as vmenv
from underlay.hosts.vagrant.places import own_uri

#: Seconds for one command to a hypervisor.
_SECONDS = 30.0


class Hypervisor(Protocol):
    """What runs virtual machines. ``machine`` is the identity that Vagrant recorded."""

    def running(self, machine: str) -> bool:
        """Whether the machine runs; False as well if there is none."""
        ...

    def power_off(self, machine: str) -> None:
        """Cut its power. No error if it is off."""
        ...

    def power_on(self, machine: str) -> None:
        """Start it from its disk; it has yet to boot. No error if it is on."""
        ...

    def emulated(self, machine: str) -> bool:
        """Whether its processors are imitated by software, which makes it several times slower."""
        ...

    def console(self, lab: str, host: str) -> Path | None:
        """Return the file with what its serial console said, or None if it has none."""
        ...


@dataclass(frozen=True, slots=True)
class Libvirt:
    """libvirt, wherever it is."""

    uri: str

    def running(self, machine: str) -> bool:
        """Whether the domain runs."""
        return self._virsh("domstate", machine, check=False).stdout.strip() == "running"

    def power_off(self, machine: str) -> None:
        """Destroy the domain, which leaves its definition and its disk (virsh(1))."""
        if self.running(machine):
            self._virsh("destroy", machine)

    def power_on(self, machine: str) -> None:
        """Start the domain."""
        if not self.running(machine):
            self._virsh("start", machine)

    def emulated(self, machine: str) -> bool:
        """Whether the domain's type is qemu (https://libvirt.org/formatdomain.html)."""
        return self._virsh("dumpxml", machine, check=False).stdout.lstrip().startswith("<domain type='qemu'")

    def console(self, lab: str, host: str) -> Path | None:
        """Return the file that virtlogd writes."""
        known = vmenv.record() if self.uri == own_uri() else None
        logs = Path("/var/log/libvirt") if known is None else known.state / "log"
        return logs / "qemu" / f"{domain_name(lab, host)}-console.log"

    def _virsh(self, *words: str, check: bool = True) -> process.Completed:
        done = process.run(
            ("virsh", "--quiet", "-c", self.uri, *words),
            timeout=_SECONDS,
            check=False,
            where="libvirt",
            env={**os.environ, "LC_ALL": "C"},
        )
        if not done.ok and "failed to connect" in done.stderr:
            hint = "./lab vm-env status says what there is; on a machine with systemd: systemctl start libvirtd"
            raise NotReady(Problem("libvirt", f"it does not answer at {self.uri}: {done.stderr.strip()}", hint))
        if check and not done.ok:
            raise process.ProgramFailed(done, "libvirt")
        return done


@dataclass(frozen=True, slots=True)
class VirtualBox:
    """Oracle VirtualBox."""

    directory: Path

    def running(self, machine: str) -> bool:
        """Whether the machine runs."""
        done = self._manage("showvminfo", machine, "--machinereadable", check=False)
        return 'VMState="running"' in done.stdout.splitlines()

    def power_off(self, machine: str) -> None:
        """Cut the power."""
        if self.running(machine):
            self._manage("controlvm", machine, "poweroff")

    def power_on(self, machine: str) -> None:
        """Start it without a window."""
        if not self.running(machine):
            self._manage("startvm", machine, "--type", "headless")

    def emulated(self, machine: str) -> bool:
        """Return false: VirtualBox does not start without the processor's help."""
        del machine
        return False

    def console(self, lab: str, host: str) -> Path | None:
        """Return the file that the machine's first serial port writes."""
        del lab
        return self.directory / f"{host}-console.log"

    def _manage(self, *words: str, check: bool = True) -> process.Completed:
        return process.run(("VBoxManage", *words), timeout=_SECONDS, check=check, where="VirtualBox")


def domain_name(lab: str, host: str) -> str:
    """Return the name that the Vagrantfile gives a machine."""
    return f"{lab}_{host}"


def hypervisors(directory: Path) -> Mapping[str, Hypervisor]:
    """Return what can run machines, by Vagrant's name of the provider; ``directory`` holds this checkout's files."""
    return MappingProxyType({"libvirt": Libvirt(vmenv.uri()), "virtualbox": VirtualBox(directory)})
