"""VXLAN devices: what they are, where they send what, and what they have counted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from testinfra.modules.base import Module

if TYPE_CHECKING:
    from acceptance.modules import LabHost


class Vxlan(Module):  # type: ignore[misc] # testinfra is not marked as typed
    """A VXLAN device by its name, as ip-link(8) and bridge(8) show it.

    >>> tunnel = host.vxlan("p3-vxlan")
    >>> tunnel.vni, tunnel.port, tunnel.local, tunnel.underlay, tunnel.learns
    (100, 4789, IPv4Address('192.168.56.11'), 'eth1', False)
    >>> tunnel.forwarding["00:00:00:00:00:00"]
    frozenset({IPv4Address('192.168.56.12')})
    """

    _host: LabHost

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def _shown(self) -> Mapping[str, object]:
        """What it is, as it was when first asked."""
        (found,) = json.loads(self._host.check_output("ip -details -json link show dev %s", self.name))
        data: Mapping[str, object] = found["linkinfo"]["info_data"]
        return data

    @property
    def vni(self) -> int:
        """The number of its network."""
        return int(str(self._shown["id"]))

    @property
    def port(self) -> int:
        """The UDP port that it sends to, and hears on."""
        return int(str(self._shown["port"]))

    @property
    def local(self) -> IPv4Address:
        """The address that it sends from."""
        return IPv4Address(str(self._shown["local"]))

    @property
    def underlay(self) -> str:
        """The link that it sends on."""
        return str(self._shown["link"])

    @property
    def learns(self) -> bool:
        """Whether it believes what arrives about who is where."""
        return bool(self._shown["learning"])

    @property
    def forwarding(self) -> Mapping[str, frozenset[IPv4Address]]:
        """To which other ends it sends frames for a MAC address; the one of zeros stands for all that are not named."""
        found: dict[str, set[IPv4Address]] = {}
        for entry in self._entries:
            found.setdefault(str(entry["mac"]), set()).add(IPv4Address(str(entry["dst"])))
        return {mac: frozenset(ends) for mac, ends in found.items()}

    @property
    def astray(self) -> Sequence[Mapping[str, object]]:
        """The entries that send frames otherwise than the device does: to another port, network, or by another link."""
        return [entry for entry in self._entries if entry.keys() & {"port", "vni", "viaIf", "viaIfIndex", "via"}]

    @property
    def _entries(self) -> Sequence[Mapping[str, object]]:
        every = json.loads(self._host.check_output("bridge -json fdb show dev %s", self.name))
        return [entry for entry in every if "dst" in entry]
