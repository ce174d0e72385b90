"""Network namespaces: who is in there, and what it reaches."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from testinfra.modules.base import Module

from acceptance.traffic import Attempt, Outcome, Prober

if TYPE_CHECKING:
    from acceptance.modules import LabHost


class Namespace(Module):  # type: ignore[misc] # testinfra is not marked as typed
    """A network namespace, by its name for ip-netns(8), or by its path.

    >>> edge = host.namespace("edge-1")
    >>> edge.exists
    True
    >>> edge.connects("gateway-1", 3000), edge.connects("redis-1", 6379)
    (True, False)
    >>> edge.resolves("gateway")
    frozenset({IPv4Address('10.77.1.20'), IPv4Address('10.77.1.21')})
    """

    _host: LabHost

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = str(PurePosixPath("/run/netns", name))

    @property
    def exists(self) -> bool:
        """Whether it is there."""
        return bool(self._host.file(self.path).exists)

    @property
    def processes(self) -> tuple[int, ...]:
        """The numbers of the processes that are in it now (lsns(8) knows them by its inode)."""
        loop = 'for p in /proc/[0-9]*; do if [ "$p/ns/net" -ef %s ]; then echo "${p#/proc/}"; fi; done'
        return tuple(map(int, self._host.check_output(loop, self.path).split()))

    def connects(self, target: str | IPv4Address, port: int, protocol: str = "tcp") -> bool:
        """Whether a connection succeeds: to an address, or a name that this namespace's resolver knows.

        ``protocol`` is tcp, udp (then something must answer there) or icmp (then ``port`` is only a number).
        """
        return self.tries(target, port, protocol).connected

    def tries(self, target: str | IPv4Address, port: int, protocol: str = "tcp") -> Outcome:
        """Return what comes of a connection; see ``connects``."""
        try:
            address = str(IPv4Address(target))
        except ValueError:
            address = str(min(self.resolves(str(target)), default=target))
        return self._prober.one(Attempt(protocol, address, port, self.path, who=self.name))

    def resolves(self, name: str) -> frozenset[IPv4Address]:
        """Return the IPv4 addresses that a program in there is told for a name; none if there is no such name."""
        return self._prober.resolve([name], self._enter)[name].addresses

    @property
    def _prober(self) -> Prober:
        return Prober(self._host.machine, self._host.plan)

    @property
    def _enter(self) -> tuple[str, ...]:
        # ip-netns(8) shows the namespace's own resolv.conf; nsenter(1) takes whatever else is a namespace.
        named = "/" not in self.name
        return ("ip", "netns", "exec", self.name) if named else ("nsenter", f"--net={self.path}")
