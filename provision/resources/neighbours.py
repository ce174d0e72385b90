"""Who is where, written down instead of asked for or learnt: a namespace's neighbours, a tunnel's forwarding table.

The kernel keeps both alike (ip-neighbour(8), RFC 826; bridge(8), fdb).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from socket import AF_BRIDGE, AF_INET

from provision.kernel import netlink
from provision.kernel.network import Neighbour
from provision.marks import Mark
from provision.resource import Command, Resource, Step
from provision.system import System

#: The entry of a forwarding table for frames to everybody, and to those that no other entry knows.
EVERYBODY = "00:00:00:00:00:00"


@dataclass(frozen=True, slots=True)
class Neighbours(Resource):
    """All permanent neighbours of a link in a namespace."""

    namespace: str
    link: str
    entries: frozenset[Neighbour]

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"neighbours on {self.namespace}/{self.link}"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return (f"link {self.namespace}/{self.link}",)

    @property
    def batched(self) -> bool:
        """See Resource."""
        return True

    def observe(self, system: System) -> str | None:
        """See Resource."""
        return told(self._seen(system), self.entries, "{address} is at {mac}")

    def apply(self, system: System) -> None:
        """See Resource."""
        index = system.network.index(self.namespace, self.link)
        fields = {"family": AF_INET, "ifindex": index, "state": netlink.NUD_PERMANENT}
        planned = {entry.address for entry in self.entries}
        seen = self._seen(system)
        for entry in _ordered(seen):
            if entry.address not in planned:
                what = f"forget where {entry.address} is"
                attributes: netlink.Attributes = [("NDA_DST", str(entry.address))]
                system.network.queue(self.namespace, netlink.request(what, netlink.DELNEIGH, 0, fields, attributes))
        for entry in _ordered(self.entries - seen):
            what = f"say that {entry.address} is at {entry.mac}"
            attributes = [("NDA_DST", str(entry.address)), ("NDA_LLADDR", entry.mac)]
            flags = netlink.CREATE | netlink.REPLACE
            system.network.queue(self.namespace, netlink.request(what, netlink.NEWNEIGH, flags, fields, attributes))

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return tuple(
            Command(("ip", "-n", self.namespace, "neighbour", "add", str(entry.address), "lladdr", entry.mac,
                     "dev", self.link, "nud", "permanent"))
            for entry in _ordered(self.entries)
        )  # fmt: skip

    def _seen(self, system: System) -> frozenset[Neighbour]:
        view = system.network.view(self.namespace)
        state = view.links.get(self.link) if view else None
        return view.neighbours(state.index) if view and state else frozenset()


@dataclass(frozen=True, slots=True)
class Forwarding(Resource):
    """A tunnel's whole forwarding table: to which other end frames for a MAC address go (EVERYBODY: all others)."""

    device: str
    entries: frozenset[Neighbour]

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"forwarding table of {self.device}"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return (f"link {self.device}",)

    @property
    def batched(self) -> bool:
        """See Resource."""
        return True

    def observe(self, system: System) -> str | None:
        """See Resource."""
        return told(self._seen(system), self.entries, "sends {mac} to {address}")

    def apply(self, system: System) -> None:
        """See Resource."""
        index = system.network.index(None, self.device)
        fields = {"family": AF_BRIDGE, "ifindex": index, "state": netlink.NUD_PERMANENT, "flags": netlink.NTF_SELF}
        seen = self._seen(system)
        for entry in _ordered(seen - self.entries):
            what = f"forget that {self.device} sends {entry.mac} to {entry.address}"
            system.network.queue(None, netlink.request(what, netlink.DELNEIGH, 0, fields, _attributes(entry)))
        for entry in _ordered(self.entries - seen):
            what = f"have {self.device} send {entry.mac} to {entry.address}"
            flags = netlink.CREATE | netlink.APPEND
            system.network.queue(None, netlink.request(what, netlink.NEWNEIGH, flags, fields, _attributes(entry)))

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return tuple(
            Command(("bridge", "fdb", "append", entry.mac, "dev", self.device, "dst", str(entry.address)))
            for entry in _ordered(self.entries)
        )

    def _seen(self, system: System) -> frozenset[Neighbour]:
        state = system.network.root().links.get(self.device)
        return system.network.root().forwarding(state.index) if state else frozenset()


@dataclass(frozen=True, slots=True)
class Behind(Resource):
    """The MAC addresses that a bridge is told to be behind one of its ports, which learns none.

    What a bridge learns it learns from whoever sends, and a frame out of a tunnel may say that it comes from anybody.
    """

    port: str
    macs: frozenset[str]

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"who is behind {self.port}"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return (f"link {self.port}",)

    @property
    def batched(self) -> bool:
        """See Resource."""
        return True

    def observe(self, system: System) -> str | None:
        """See Resource."""
        seen = self._seen(system)
        lacks = [f"lacks: {mac}" for mac in sorted(self.macs - seen)]
        return "; ".join([*lacks, *(f"{mac}, unplanned" for mac in sorted(seen - self.macs))]) or None

    def apply(self, system: System) -> None:
        """See Resource."""
        index = system.network.index(None, self.port)
        fields = {"family": AF_BRIDGE, "ifindex": index, "state": netlink.NUD_NOARP, "flags": netlink.NTF_MASTER}
        seen = self._seen(system)
        changes = [(f"forget that {mac} is behind {self.port}", netlink.DELNEIGH, 0, mac) for mac in seen - self.macs]
        flags = netlink.CREATE | netlink.REPLACE
        changes += [(f"say that {mac} is behind {self.port}", netlink.NEWNEIGH, flags, mac) for mac in self.macs - seen]
        for what, kind, how, mac in sorted(changes):
            system.network.queue(None, netlink.request(what, kind, how, fields, [("NDA_LLADDR", mac)]))

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return tuple(
            Command(("bridge", "fdb", "replace", mac, "dev", self.port, "master", "static"))
            for mac in sorted(self.macs)
        )

    def _seen(self, system: System) -> frozenset[str]:
        state = system.network.root().links.get(self.port)
        return system.network.root().behind(state.index) if state else frozenset()


def _attributes(entry: Neighbour) -> netlink.Attributes:
    more = (("NDA_PORT", entry.port), ("NDA_VNI", entry.vni), ("NDA_IFINDEX", entry.link))
    where: tuple[str, netlink.Value] = ("NDA_NH_ID", entry.hop) if entry.hop else ("NDA_DST", str(entry.address))
    own: list[tuple[str, netlink.Value]] = [("NDA_LLADDR", entry.mac), where]
    return [*own, *((name, value) for name, value in more if value)]


def _ordered(entries: frozenset[Neighbour]) -> list[Neighbour]:
    """Return entries in one order, whatever the day."""
    return sorted(entries, key=astuple)


def told(seen: frozenset[Neighbour], planned: frozenset[Neighbour], words: str) -> str | None:
    """Return what differs between two tables, as ``words`` say an entry; None if nothing does."""

    def said(entry: Neighbour) -> str:
        more = (("port", entry.port), ("VNI", entry.vni), ("link", entry.link), ("by the next hop", entry.hop))
        own = words.format(mac=entry.mac, address=entry.address)
        fleeting = ("for a while",) if entry.fleeting else ()
        return " ".join((own, *(f"{name} {value}" for name, value in more if value), *fleeting))

    lacks = [f"lacks: {said(entry)}" for entry in _ordered(planned - seen)]
    more = [f"{said(entry)}, unplanned" for entry in _ordered(seen - planned)]
    return "; ".join([*lacks, *more]) or None
