"""What is there, by network namespace, and a queue of what is to be changed.

A :class:`View` is a snapshot of one namespace, taken at the first question and thrown away by the first change. Changes
are queued and go out together at :meth:`Network.flush`: first what concerns the host's own namespace (which makes the
veth pairs), then each other namespace.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from provision.kernel import netlink, syscalls
from provision.kernel.netlink import Answer, Channel, Request
from underlay import libc
from underlay.errors import NotReady, Problem

#: Where iproute2 keeps the names of network namespaces (ip-netns(8)).
NETNS_DIR = Path("/run/netns")
#: Namespaces whose sockets may be open at the same time; well below the usual limit of 1024 descriptors.
_OPEN_AT_ONCE = 250
_MAIN_TABLE = 254
_UNICAST = 1  # RTN_UNICAST, include/uapi/linux/rtnetlink.h
_UP = 0x1
#: The loopback link has this index in every namespace.
LOOPBACK = 1


@dataclass(frozen=True, slots=True)
class LinkState:
    """A link as the kernel has it; ``master`` and ``peer`` are interface indexes, 0 for none; ``mtu`` in bytes.

    ``data`` are the attributes that its kind alone has, and ``port`` those that it has as a port of a bridge, as they
    came (IFLA_INFO_DATA, IFLA_INFO_SLAVE_DATA).
    """

    index: int
    name: str
    kind: str
    mtu: int
    up: bool
    master: int
    peer: int
    group: int
    mac: str
    data: bytes = b""
    port: bytes = b""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Who is behind a link: a MAC address and an IPv4 address, of a neighbour (ARP) or of a tunnel's other end.

    ``port``, ``vni`` and ``link`` are what an entry of a tunnel says otherwise than its device; 0 if it does not. One
    that is ``fleeting`` goes by itself. With a ``hop``, a number of ip-nexthop(8), there is no address (0.0.0.0).
    """

    mac: str
    address: IPv4Address
    port: int = 0
    vni: int = 0
    link: int = 0
    fleeting: bool = False
    hop: int = 0


@dataclass(frozen=True, slots=True)
class RouteState:
    """A route of the main table; ``link`` is the outgoing interface's index."""

    destination: IPv4Network
    via: IPv4Address | None
    link: int
    protocol: int


class View:
    """A snapshot of one network namespace, read when first asked for."""

    def __init__(self, where: str, path: Path | None) -> None:
        self._where = where
        if path is None:
            self._channel = Channel(where)
        else:
            with syscalls.inside(path):
                self._channel = Channel(where)

    def close(self) -> None:
        """Close the socket behind the view."""
        self._channel.close()

    def send(self, requests: list[Request]) -> None:
        """Send changes at once."""
        self._channel.send(requests)

    @cached_property
    def loopback_group(self) -> int:
        """The group of the loopback link, which says whose the namespace is."""
        return self._channel.group_of(LOOPBACK)

    @cached_property
    def links(self) -> Mapping[str, LinkState]:
        """The links by name."""
        found: dict[str, LinkState] = {}
        for answer in self._channel.dump(netlink.GETLINK, socket.AF_UNSPEC):
            _, _, index, flags, _ = answer.fields
            info = Answer((), dict(netlink.attributes(answer.attributes.get(netlink.IFLA_LINKINFO, b""), 0)))
            name = answer.text(netlink.IFLA_IFNAME)
            found[name] = LinkState(
                index=index,
                name=name,
                kind=info.text(netlink.IFLA_INFO_KIND),
                mtu=answer.number(netlink.IFLA_MTU),
                up=bool(flags & _UP),
                master=answer.number(netlink.IFLA_MASTER),
                peer=answer.number(netlink.IFLA_LINK),
                group=answer.number(netlink.IFLA_GROUP),
                mac=answer.attributes.get(netlink.IFLA_ADDRESS, b"").hex(":"),
                data=info.attributes.get(netlink.IFLA_INFO_DATA, b""),
                port=info.attributes.get(netlink.IFLA_INFO_SLAVE_DATA, b""),
            )
        return found

    @cached_property
    def addresses(self) -> Mapping[int, frozenset[IPv4Interface]]:
        """The IPv4 addresses by the index of their link."""
        found: dict[int, set[IPv4Interface]] = {}
        for answer in self._channel.dump(netlink.GETADDR):
            _, prefix, _, _, index = answer.fields
            address = answer.attributes.get(netlink.IFA_LOCAL) or answer.attributes[netlink.IFA_ADDRESS]
            found.setdefault(index, set()).add(IPv4Interface((address, prefix)))
        return {index: frozenset(addresses) for index, addresses in found.items()}

    @cached_property
    def routes(self) -> frozenset[RouteState]:
        """The IPv4 unicast routes of the main table, the kernel's own included."""
        found: set[RouteState] = set()
        for answer in self._channel.dump(netlink.GETROUTE):
            _, length, _, _, table, protocol, _, kind, _ = answer.fields
            if (answer.number(netlink.RTA_TABLE) or table) != _MAIN_TABLE or kind != _UNICAST:
                continue
            via = answer.attributes.get(netlink.RTA_GATEWAY)
            found.add(
                RouteState(
                    destination=IPv4Network((answer.attributes.get(netlink.RTA_DST, bytes(4)), length)),
                    via=IPv4Address(via) if via else None,
                    link=answer.number(netlink.RTA_OIF),
                    protocol=protocol,
                )
            )
        return frozenset(found)

    def neighbours(self, link: int) -> frozenset[Neighbour]:
        """Return the neighbours of a link that were written down for ever (`ip neighbour`, nud permanent)."""
        return self._neighbours(socket.AF_INET, link)

    def forwarding(self, link: int) -> frozenset[Neighbour]:
        """Return a tunnel's own forwarding table: to which other end a frame goes (`bridge fdb`, self)."""
        return self._neighbours(socket.AF_BRIDGE, link)

    def behind(self, link: int) -> frozenset[str]:
        """Return the MAC addresses that a bridge was told to be behind a port of it (`bridge fdb`, master static)."""
        return frozenset(
            answer.attributes[netlink.NDA_LLADDR].hex(":")
            for answer in self._channel.dump(netlink.GETNEIGH, socket.AF_BRIDGE)
            if answer.fields[1] == link and netlink.NDA_MASTER in answer.attributes
            if answer.fields[2] & netlink.NUD_NOARP
        )

    def _neighbours(self, family: int, link: int) -> frozenset[Neighbour]:
        """Return those of one link: of a tunnel all entries of its own, else those that are there for ever."""
        own = netlink.NTF_SELF if family == socket.AF_BRIDGE else 0
        found: set[Neighbour] = set()
        for answer in self._channel.dump(netlink.GETNEIGH, family):
            _, index, state, flags, _ = answer.fields
            mac, address = (answer.attributes.get(number) for number in (netlink.NDA_LLADDR, netlink.NDA_DST))
            lasting, hop = bool(state & netlink.NUD_PERMANENT), answer.number(netlink.NDA_NH_ID)
            good = index == link and flags & netlink.NTF_SELF == own
            if good and mac and (address or hop) and (own or lasting):
                port = int.from_bytes(answer.attributes.get(netlink.NDA_PORT, b""), "big")
                others = (answer.number(netlink.NDA_VNI), answer.number(netlink.NDA_IFINDEX))
                end = IPv4Address(address) if address else IPv4Address(0)
                found.add(Neighbour(mac.hex(":"), end, port, *others, not lasting, hop))
        return frozenset(found)

    def addresses_of(self, link: str) -> frozenset[IPv4Interface]:
        """Return the IPv4 addresses of one link; none if there is no such link."""
        state = self.links.get(link)
        return self.addresses.get(state.index, frozenset()) if state else frozenset()


class Network:
    """All network namespaces of this host. ``None`` stands for the host's own."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._views: dict[str | None, View] = {}
        self._queue: dict[str | None, list[Request]] = {}
        self._planned_indexes: dict[tuple[str | None, str], int] = {}
        self._next_index: dict[str | None, int] = {}
        self._descriptors: dict[str, int] = {}
        self._names_shared = False

    def close(self) -> None:
        """Close all sockets, forget every snapshot and every index that was chosen."""
        self._close_views()
        self._planned_indexes.clear()
        self._next_index.clear()

    def discard(self) -> None:
        """Drop what is queued, and close: after a refusal nothing that was seen or chosen can be relied on."""
        self._queue = {}
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}
        self.close()

    def where(self, namespace: str | None) -> str:
        """Return the place's name for messages: ``host1`` or ``host1/gateway-1``."""
        return self._host if namespace is None else f"{self._host}/{namespace}"

    def namespaces(self) -> tuple[str, ...]:
        """Names of all network namespaces on the host, whoever made them."""
        if not NETNS_DIR.is_dir():
            return ()
        return tuple(sorted(path.name for path in NETNS_DIR.iterdir() if is_namespace(path)))

    def view(self, namespace: str | None) -> View | None:
        """Return the snapshot of a namespace, or None if there is no such namespace."""
        if namespace not in self._views:
            if namespace is not None and not is_namespace(NETNS_DIR / namespace):
                return None
            self._make_room()
            path = None if namespace is None else NETNS_DIR / namespace
            self._views[namespace] = View(self.where(namespace), path)
        return self._views[namespace]

    def root(self) -> View:
        """Return the snapshot of the host's own namespace."""
        view = self.view(None)
        assert view is not None, "the host's own namespace is always there"  # noqa: S101
        return view

    def forget(self, namespace: str | None) -> None:
        """Throw the snapshot of a namespace away, because it has changed."""
        view = self._views.pop(namespace, None)
        if view:
            view.close()

    def queue(self, namespace: str | None, item: Request) -> None:
        """Queue one change; it goes out at the next flush."""
        self._queue.setdefault(namespace, []).append(item)

    def share_names(self) -> None:
        """Make /run/netns a shared mount, as `ip netns add` does; once is enough.

        Programs started by `ip netns exec` have a mount namespace of their own; only through a shared mount do they
        learn that a namespace was unmounted, and let go of it.
        """
        if self._names_shared:
            return
        NETNS_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
        directory = str(NETNS_DIR)
        try:
            libc.mount("", directory, flags=libc.MS_SHARED | libc.MS_REC)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: it is not a mount point yet
                raise
            libc.mount(directory, directory, flags=libc.MS_BIND | libc.MS_REC)
            libc.mount("", directory, flags=libc.MS_SHARED | libc.MS_REC)
        self._names_shared = True

    def made(self, namespace: str, view: View) -> None:
        """Take note of a namespace made a moment ago, which holds only its loopback; ``view`` is of it and is kept."""
        self.forget(namespace)
        self._make_room()
        self._views[namespace] = view
        self._next_index[namespace] = LOOPBACK + 1

    def new_index(self, namespace: str | None, link: str) -> int:
        """Choose an interface index for a link that is about to be made, so that what follows need not look it up."""
        if namespace not in self._next_index:
            view = self.view(namespace)
            used = [state.index for state in view.links.values()] if view else [1]
            self._next_index[namespace] = max(used, default=1) + 1
        index = self._next_index[namespace]
        self._next_index[namespace] = index + 1
        self._planned_indexes[namespace, link] = index
        return index

    def index(self, namespace: str | None, link: str) -> int:
        """Return the interface index of a link that is there or is queued; 0 if it is neither."""
        planned = self._planned_indexes.get((namespace, link))
        if planned is not None:
            return planned
        view = self.view(namespace)
        state = view.links.get(link) if view else None
        return state.index if state else 0

    def descriptor(self, namespace: str) -> int:
        """Return an open descriptor of a namespace, valid until the next flush."""
        if namespace not in self._descriptors and len(self._descriptors) >= _OPEN_AT_ONCE:
            self.flush()
        if namespace not in self._descriptors:
            self._descriptors[namespace] = os.open(NETNS_DIR / namespace, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptors[namespace]

    def flush(self) -> None:
        """Send all that is queued, the host's own namespace first; snapshots of what changed are thrown away."""
        queue, self._queue = self._queue, {}
        descriptors, self._descriptors = self._descriptors, {}
        try:
            for namespace in sorted(queue, key=lambda name: name is not None):
                view = self.view(namespace)
                if view is None:
                    raise NotReady(Problem(self.where(namespace), "the namespace has gone meanwhile", "try again"))
                view.send(queue[namespace])
        finally:
            for descriptor in descriptors.values():
                os.close(descriptor)
            if queue:
                # A change on one end of a veth pair shows on the other.
                self._close_views()

    def _make_room(self) -> None:
        """Close the oldest view of a namespace if too many are open; the host's own is the one used most."""
        if len(self._views) >= _OPEN_AT_ONCE:
            self.forget(next(name for name in self._views if name is not None))

    def _close_views(self) -> None:
        for view in self._views.values():
            view.close()
        self._views.clear()


def is_namespace(path: Path) -> bool:
    """Whether a network namespace is mounted at ``path`` (a name without one is left by an interrupted `ip netns`)."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(there.st_mode) and there.st_dev == _namespace_device()


@cache
def _namespace_device() -> int:
    """Return the number of the filesystem on which the kernel keeps namespaces (nsfs)."""
    return syscalls.OWN_NET.stat().st_dev
