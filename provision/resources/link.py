"""Links: bridges, and veth pairs that plug a namespace into one (ip-link(8), veth(4))."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from provision.kernel import netlink
from provision.kernel.network import LinkState
from provision.marks import Mark
from provision.resource import Command, Found, Resource, Step
from provision.system import NotOurs, System

_UP = 0x1


@dataclass(frozen=True, slots=True)
class Bridge(Resource):
    """A bridge in the host's own namespace. ``mac`` is fixed, since a bridge else borrows one from its ports."""

    name: str
    mtu: int
    mac: str

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"link {self.name}"

    @property
    def batched(self) -> bool:
        """See Resource."""
        return True

    def observe(self, system: System) -> str | None:
        """See Resource."""
        state = owned(system, self.name)
        if state is None:
            return "is missing"
        return first_of(
            differs("kind", state.kind, "bridge"),
            differs("mtu", state.mtu, self.mtu),
            differs("mac", state.mac, self.mac),
            None if state.up else "is down",
        )

    def apply(self, system: System) -> None:
        """See Resource."""
        state = owned(system, self.name)
        if state is not None and state.kind != "bridge":
            delete(system, self.name)
            state = None
        common: list[tuple[str, netlink.Value]] = [("IFLA_MTU", self.mtu), ("IFLA_ADDRESS", self.mac)]
        if state is None:
            system.network.queue(
                None,
                netlink.request(
                    f"make bridge {self.name}",
                    netlink.NEWLINK,
                    netlink.CREATE | netlink.EXCLUSIVE,
                    {"index": system.network.new_index(None, self.name), "flags": _UP, "change": _UP},
                    [
                        ("IFLA_IFNAME", self.name),
                        ("IFLA_GROUP", system.mark.group),
                        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]}),
                        *common,
                    ],
                ),
            )
            return
        fields = {"index": state.index, "flags": _UP, "change": _UP}
        system.network.queue(None, netlink.request(f"set up bridge {self.name}", netlink.NEWLINK, 0, fields, common))

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (
            Command(("ip", "link", "add", self.name, "address", self.mac, "mtu", str(self.mtu),
                     "group", str(mark.group), "type", "bridge")),
            Command(("ip", "link", "set", self.name, "up")),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Veth(Resource):
    """A veth pair: ``name`` is the host's end, a port of ``bridge``; ``inner`` is the end inside ``namespace``.

    ``mac`` is the inner end's address: derived from its IP address, so that neighbours need not learn a new one when
    the pair is made again.
    """

    name: str
    bridge: str
    namespace: str
    inner: str
    mtu: int
    mac: str

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"link {self.name}"

    @property
    def provides(self) -> tuple[str, ...]:
        """See Resource: both ends."""
        return (self.identity, f"link {self.namespace}/{self.inner}")

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return (f"link {self.bridge}", f"namespace {self.namespace}")

    @property
    def batched(self) -> bool:
        """See Resource."""
        return True

    def observe(self, system: System) -> str | None:
        """See Resource."""
        outer = owned(system, self.name)
        inner = self._inner(system)
        if outer is None or inner is None:
            return "is missing" if outer is None else f"{self.inner} is missing in {self.namespace}"
        master = system.network.root().links.get(self.bridge)
        return first_of(
            differs("kind", outer.kind, "veth"),
            None if inner.peer == outer.index else f"{self.inner} in {self.namespace} is not its peer",
            None if master and outer.master == master.index else f"is not a port of {self.bridge}",
            differs("mtu", outer.mtu, self.mtu),
            None if outer.up else "is down",
            differs(f"{self.inner}'s mtu", inner.mtu, self.mtu),
            differs(f"{self.inner}'s mac", inner.mac, self.mac),
            None if inner.up else f"{self.inner} is down in {self.namespace}",
        )

    def apply(self, system: System) -> None:
        """See Resource."""
        network = system.network
        outer, inner = owned(system, self.name), self._inner(system)
        paired = outer is not None and inner is not None and outer.kind == "veth" and inner.peer == outer.index
        master = network.index(None, self.bridge)
        if paired and outer and inner:
            fields = {"index": outer.index, "flags": _UP, "change": _UP}
            attributes: netlink.Attributes = [("IFLA_MTU", self.mtu), ("IFLA_MASTER", master)]
            network.queue(None, netlink.request(f"set up {self.name}", netlink.NEWLINK, 0, fields, attributes))
            fields = {"index": inner.index, "flags": _UP, "change": _UP}
            # Written again, even the same one makes the kernel forget all neighbours (neigh_changeaddr).
            attributes = [("IFLA_MTU", self.mtu), *([("IFLA_ADDRESS", self.mac)] if inner.mac != self.mac else [])]
            network.queue(
                self.namespace, netlink.request(f"set up {self.inner}", netlink.NEWLINK, 0, fields, attributes)
            )
            return
        if outer is not None:
            delete(system, self.name)
        elif inner is not None:
            delete(system, self.inner, self.namespace)
        descriptor = network.descriptor(self.namespace)  # may flush, so it comes before what the flush forgets
        master = network.index(None, self.bridge)
        index = network.new_index(self.namespace, self.inner)
        peer: netlink.Value = {
            "index": index,
            "attrs": [
                ("IFLA_IFNAME", self.inner),
                ("IFLA_MTU", self.mtu),
                ("IFLA_ADDRESS", self.mac),
                ("IFLA_GROUP", system.mark.group),
                ("IFLA_NET_NS_FD", descriptor),
            ],
        }
        kind: netlink.Value = {
            "attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]
        }
        network.queue(
            None,
            netlink.request(
                f"plug {self.namespace} into {self.bridge} with {self.name}",
                netlink.NEWLINK,
                netlink.CREATE | netlink.EXCLUSIVE,
                {"index": network.new_index(None, self.name), "flags": _UP, "change": _UP},
                [
                    ("IFLA_IFNAME", self.name),
                    ("IFLA_MTU", self.mtu),
                    ("IFLA_GROUP", system.mark.group),
                    ("IFLA_MASTER", master),
                    ("IFLA_LINKINFO", kind),
                ],
            ),
        )
        # Not in the same request: the kernel opens a veth only when it has its peer (veth_open, drivers/net/veth.c).
        fields = {"index": index, "flags": _UP, "change": _UP}
        network.queue(self.namespace, netlink.request(f"bring {self.inner} up", netlink.NEWLINK, 0, fields))

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        group, mtu = str(mark.group), str(self.mtu)
        return (
            Command(("ip", "link", "add", self.name, "mtu", mtu, "group", group, "type", "veth",
                     "peer", "name", self.inner, "netns", self.namespace, "address", self.mac, "mtu", mtu)),
            Command(("ip", "-n", self.namespace, "link", "set", self.inner, "group", group, "up")),
            Command(("ip", "link", "set", self.name, "master", self.bridge, "up")),
        )  # fmt: skip

    def _inner(self, system: System) -> LinkState | None:
        view = system.network.view(self.namespace)
        return view.links.get(self.inner) if view else None


def discover(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find the links of the host's own namespace that carry our mark."""
    for name, state in system.network.root().links.items():
        if state.group == system.mark.group:
            yield Found(f"link {name}", _remover(name))


def remove_all(system: System) -> None:
    """Remove every link of ours in the host's own namespace, and with them their peers, in one request."""
    what = f"delete the links of group {system.mark.group}"
    system.network.flush()
    attributes = [("IFLA_GROUP", system.mark.group)]
    system.network.root().send([netlink.request(what, netlink.DELLINK, 0, {}, attributes)])
    system.network.close()


def _remover(name: str) -> Callable[[System], None]:
    return lambda system: delete(system, name)


def delete(system: System, name: str, namespace: str | None = None) -> None:
    """Delete a link at once, since its name is wanted again or its end is waited for."""
    network = system.network
    network.flush()
    view = network.view(namespace)
    state = view.links.get(name) if view else None
    if view is None or state is None:
        return
    try:
        view.send([netlink.request(f"delete {name}", netlink.DELLINK, 0, {"index": state.index})])
    except netlink.KernelRefused as refused:
        # The kernel clears a deleted namespace away in its own time, and with it the other end of this pair.
        if refused.errno != errno.ENODEV:
            raise
    network.close()


def owned(system: System, name: str) -> LinkState | None:
    """Return a link of ours in the host's own namespace; None if it is missing. Raises NotOurs if it is not ours."""
    state = system.network.root().links.get(name)
    if state is not None and state.group != system.mark.group:
        raise NotOurs(system.host, f"a link named {name}", ("ip", "link", "delete", name))
    return state


def differs(what: str, seen: str | int, planned: str | int) -> str | None:
    """Return the words for a difference, or None."""
    return None if seen == planned else f"{what} is {seen}, planned {planned}"


def first_of(*differences: str | None) -> str | None:
    """Return the first that is not None."""
    return next((difference for difference in differences if difference), None)
