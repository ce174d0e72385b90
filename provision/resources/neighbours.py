"""Neighbours that are written down instead of asked for (ip-neighbour(8), RFC 826)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from socket import AF_INET

from provision.kernel import netlink
from provision.kernel.network import Neighbour
from provision.marks import Mark
from provision.resource import Command, Resource, Step
from provision.resources.vxlan import ordered, told
from provision.system import System


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
        for entry in ordered(seen):
            if entry.address not in planned:
                what = f"forget where {entry.address} is"
                attributes: netlink.Attributes = [("NDA_DST", str(entry.address))]
                system.network.queue(self.namespace, netlink.request(what, netlink.DELNEIGH, 0, fields, attributes))
        for entry in ordered(self.entries - seen):
            what = f"say that {entry.address} is at {entry.mac}"
            attributes = [("NDA_DST", str(entry.address)), ("NDA_LLADDR", entry.mac)]
            flags = netlink.CREATE | netlink.REPLACE
            system.network.queue(self.namespace, netlink.request(what, netlink.NEWNEIGH, flags, fields, attributes))

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return tuple(
            Command(("ip", "-n", self.namespace, "neighbour", "add", str(entry.address), "lladdr", entry.mac,
                     "dev", self.link, "nud", "permanent"))
            for entry in ordered(self.entries)
        )  # fmt: skip

    def _seen(self, system: System) -> frozenset[Neighbour]:
        view = system.network.view(self.namespace)
        state = view.links.get(self.link) if view else None
        return view.neighbours(state.index) if view and state else frozenset()
