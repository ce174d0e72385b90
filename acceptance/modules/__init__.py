"""testinfra for this lab: its ``host``, and beside its modules a few of ours, for what it does not know.

What testinfra has is asked of testinfra: ``host.file``, ``host.sysctl``, ``host.user``, ``host.process``,
``host.package``, ``host.socket``, ``host.interface``, ``host.supervisor``. Ours are ``host.namespace``, ``host.links``,
``host.rules``, ``host.program``, ``host.cgroup`` and ``host.vxlan``; each has an example in its docstring.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TypeVar

from testinfra.host import Host

from acceptance.modules.cgroup import Cgroup
from acceptance.modules.links import Links
from acceptance.modules.namespace import Namespace
from acceptance.modules.program import Program
from acceptance.modules.rules import Rules
from acceptance.modules.tunnel import Vxlan
from underlay.hosts.backend import MachineBackend
from underlay.hosts.base import Machine
from underlay.topology import Plan

_T = TypeVar("_T")


class LabHost(Host):  # type: ignore[misc] # testinfra is not marked as typed
    """testinfra's Host for a machine of the lab, or for a place in it that ``enter`` puts commands into.

    >>> host.file("/etc/resolv.conf").mode == 0o644
    True
    >>> host.namespace("edge-1").connects("gateway-1", 3000)
    True
    """

    def __init__(self, machine: Machine, plan: Plan, *, enter: Sequence[str] = (), name: str = "") -> None:
        self.plan = plan
        super().__init__(MachineBackend(machine, enter, name))

    @property
    def machine(self) -> Machine:
        """The machine itself, to which commands go as argument lists."""
        backend: MachineBackend = self.backend
        return backend.machine

    @property
    def name(self) -> str:
        """The name used in messages: ``host1``, or ``host1/edge-1``."""
        return str(self.backend.get_hostname())

    @cached_property
    def cgroup(self) -> type[Cgroup]:
        """Control groups of processes of this machine."""
        return _bound(Cgroup, self)

    @cached_property
    def links(self) -> Links:
        """The links of this network."""
        return Links(self)

    @cached_property
    def namespace(self) -> type[Namespace]:
        """Network namespaces of this machine."""
        return _bound(Namespace, self)

    @cached_property
    def program(self) -> type[Program]:
        """Programs under supervisord."""
        return _bound(Program, self)

    @cached_property
    def rules(self) -> type[Rules]:
        """Chains of iptables."""
        return _bound(Rules, self)

    @cached_property
    def vxlan(self) -> type[Vxlan]:
        """VXLAN devices of this network."""
        return _bound(Vxlan, self)


def _bound(module: type[_T], host: Host) -> type[_T]:
    """Return a module that asks this host, as testinfra does with its own."""
    return type(module.__name__, (module,), {"_host": host})
