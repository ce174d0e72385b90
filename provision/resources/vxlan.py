"""A VXLAN device (RFC 7348; ip-link(8), Documentation/networking/vxlan.rst)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from provision.kernel import netlink
from provision.kernel.network import LinkState
from provision.marks import Mark
from provision.resource import Command, Resource, Step
from provision.resources.link import delete, differs, first_of, owned
from provision.system import System

_UP = 0x1
# include/uapi/linux/if_link.h
_ID, _GROUP, _LINK, _LOCAL, _LEARNING, _PORT = 1, 2, 3, 4, 7, 15
#: What a port of a bridge does (IFLA_BRPORT_*): learn who is behind it, and take what nobody knows the way of.
_PORT_LEARNING, _PORT_FLOOD = 8, 9


@dataclass(frozen=True, slots=True)
class Vxlan(Resource):
    """A port of ``bridge`` that leads into a tunnel: frames leave in UDP, from ``local`` on the link ``underlay``.

    Nothing is learnt from what arrives, neither by it nor by the bridge: where a frame goes stands in tables alone
    (``resources/neighbours.py``).
    ``mtu`` is explicit, since what the kernel works out follows the underlay only when the device is made.
    """

    name: str
    vni: int
    port: int
    local: IPv4Address
    underlay: str
    bridge: str
    mtu: int
    mac: str

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"link {self.name}"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return (f"link {self.bridge}",)

    @property
    def batched(self) -> bool:
        """See Resource."""
        return True

    def observe(self, system: System) -> str | None:
        """See Resource."""
        state = owned(system, self.name)
        if state is None:
            return "is missing"
        master = system.network.root().links.get(self.bridge)
        return first_of(
            differs("kind", state.kind, "vxlan"),
            self._tunnel_differs(system, state),
            None if master and state.master == master.index else f"is not a port of {self.bridge}",
            _port_differs(state),
            differs("mtu", state.mtu, self.mtu),
            differs("mac", state.mac, self.mac),
            None if state.up else "is down",
        )

    def apply(self, system: System) -> None:
        """See Resource. What makes it this tunnel cannot be changed while it is there, so it is made anew then."""
        network = system.network
        state = owned(system, self.name)
        if state is not None and (state.kind != "vxlan" or self._tunnel_differs(system, state)):
            delete(system, self.name)
            state = None
        master = network.index(None, self.bridge)
        common: list[tuple[str, netlink.Value]] = [
            ("IFLA_MTU", self.mtu),
            ("IFLA_ADDRESS", self.mac),
            ("IFLA_MASTER", master),
        ]
        if state is not None:
            fields = {"index": state.index, "flags": _UP, "change": _UP}
            network.queue(None, netlink.request(f"set up {self.name}", netlink.NEWLINK, 0, fields, common))
            self._set_port(system, state.index)
            return
        data: netlink.Attributes = [
            ("IFLA_VXLAN_ID", self.vni),
            ("IFLA_VXLAN_LOCAL", str(self.local)),
            ("IFLA_VXLAN_LINK", network.index(None, self.underlay)),
            ("IFLA_VXLAN_PORT", self.port),
            ("IFLA_VXLAN_LEARNING", 0),
        ]
        index = network.new_index(None, self.name)
        kind: netlink.Value = {"attrs": [("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", {"attrs": data})]}
        network.queue(
            None,
            netlink.request(
                f"make the tunnel {self.name} on {self.underlay}",
                netlink.NEWLINK,
                netlink.CREATE | netlink.EXCLUSIVE,
                {"index": index, "flags": _UP, "change": _UP},
                [
                    ("IFLA_IFNAME", self.name),
                    ("IFLA_GROUP", system.mark.group),
                    ("IFLA_LINKINFO", kind),
                    *common,
                ],
                module="vxlan",
            ),
        )
        self._set_port(system, index)

    def _set_port(self, system: System, index: int) -> None:
        """Have the bridge learn nothing from the port. It can be said only of one that is there."""
        data: netlink.Value = {"attrs": [("IFLA_BRPORT_LEARNING", 0), ("IFLA_BRPORT_UNICAST_FLOOD", 1)]}
        kind: netlink.Value = {"attrs": [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", data)]}
        what = f"have {self.bridge} learn nothing from {self.name}"
        system.network.queue(
            None, netlink.request(what, netlink.NEWLINK, 0, {"index": index}, [("IFLA_LINKINFO", kind)])
        )

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (
            Command(("ip", "link", "add", self.name, "address", self.mac, "mtu", str(self.mtu),
                     "group", str(mark.group), "type", "vxlan", "id", str(self.vni), "dstport", str(self.port),
                     "local", str(self.local), "dev", self.underlay, "nolearning")),
            Command(("ip", "link", "set", self.name, "master", self.bridge, "up")),
            Command(("bridge", "link", "set", "dev", self.name, "learning", "off")),
        )  # fmt: skip

    def _tunnel_differs(self, system: System, state: LinkState) -> str | None:
        seen = dict(netlink.attributes(state.data, 0))
        links = {link.index: name for name, link in system.network.root().links.items()}
        local = seen.get(_LOCAL)
        return first_of(
            differs("VNI", _native(seen, _ID), self.vni),
            differs("UDP port", int.from_bytes(seen.get(_PORT, b""), "big"), self.port),
            differs("local address", str(IPv4Address(local)) if local else "none", str(self.local)),
            differs("underlay", links.get(_native(seen, _LINK), "none"), self.underlay),
            "sends what it does not know to a group" if _GROUP in seen else None,
            "learns from what arrives" if _native(seen, _LEARNING) else None,
        )


def _port_differs(state: LinkState) -> str | None:
    seen = dict(netlink.attributes(state.port, 0))
    return first_of(
        "its bridge learns from what arrives by it" if _native(seen, _PORT_LEARNING) else None,
        None if _native(seen, _PORT_FLOOD) else "its bridge sends nothing there that it does not know the way of",
    )


def _native(seen: Mapping[int, bytes], number: int) -> int:
    return int.from_bytes(seen.get(number, b""), sys.byteorder)
