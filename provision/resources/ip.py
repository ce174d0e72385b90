"""IPv4 addresses and routes (ip-address(8), ip-route(8))."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from socket import AF_INET

from provision.kernel import netlink
from provision.kernel.network import RouteState
from provision.marks import Mark
from provision.resource import Command, Found, Resource, Step
from provision.resources.namespace import Namespace
from provision.system import NotOurs, System

_MAIN_TABLE = 254
_UNICAST, _LINK_SCOPE, _UNIVERSE = 1, 253, 0  # RTN_UNICAST, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE
_ANYWHERE = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True, slots=True)
class Address(Resource):
    """An address on a link of ours; ``namespace`` None is the host's own."""

    namespace: str | None
    link: str
    address: IPv4Interface

    @property
    def identity(self) -> str:
        """See Resource."""
        return _address_identity(self.namespace, self.link, self.address)

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return (f"link {_place(self.namespace)}{self.link}",)

    @property
    def batched(self) -> bool:
        """See Resource."""
        return True

    def observe(self, system: System) -> str | None:
        """See Resource."""
        view = system.network.view(self.namespace)
        return None if view and self.address in view.addresses_of(self.link) else "is missing"

    def apply(self, system: System) -> None:
        """See Resource."""
        system.network.queue(
            self.namespace,
            netlink.request(
                f"add address {self.address} to {self.link}",
                netlink.NEWADDR,
                netlink.CREATE | netlink.REPLACE,
                {
                    "family": AF_INET,
                    "prefixlen": self.address.network.prefixlen,
                    "index": system.network.index(self.namespace, self.link),
                },
                [
                    ("IFA_LOCAL", str(self.address.ip)),
                    ("IFA_ADDRESS", str(self.address.ip)),
                    ("IFA_BROADCAST", str(self.address.network.broadcast_address)),
                ],
            ),
        )

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        place = ("-n", self.namespace) if self.namespace else ()
        return (Command(("ip", *place, "address", "add", str(self.address), "broadcast", "+", "dev", self.link)),)


@dataclass(frozen=True, slots=True)
class Route(Resource):
    """A route by way of another machine; ``via`` must be reachable on a link of the namespace."""

    namespace: str | None
    destination: IPv4Network
    via: IPv4Address
    link: str

    @property
    def identity(self) -> str:
        """See Resource."""
        return _route_identity(self.namespace, self.destination)

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return (f"link {_place(self.namespace)}{self.link}",)

    @property
    def batched(self) -> bool:
        """See Resource."""
        return True

    def observe(self, system: System) -> str | None:
        """See Resource."""
        view = system.network.view(self.namespace)
        found = [route for route in view.routes if route.destination == self.destination] if view else []
        if view is None or not found:
            return "is missing"
        link = view.links.get(self.link)
        if any(route.via == self.via and link and link.index == route.link for route in found):
            return None
        # All routes of a namespace of ours are ours; in the host's own one, only those that carry the mark.
        if self.namespace is None and all(route.protocol != system.mark.protocol for route in found):
            what = f"a route to {self.destination}{f' via {found[0].via}' if found[0].via else ''}"
            raise NotOurs(system.host, what, ("ip", "route", "delete", str(self.destination)))
        return f"goes via {found[0].via}, planned {self.via} on {self.link}"

    def apply(self, system: System) -> None:
        """See Resource."""
        attributes: list[tuple[str, netlink.Value]] = [
            ("RTA_GATEWAY", str(self.via)),
            ("RTA_OIF", system.network.index(self.namespace, self.link)),
        ]
        if self.destination != _ANYWHERE:
            attributes.append(("RTA_DST", str(self.destination.network_address)))
        fields = {
            "family": AF_INET,
            "dst_len": self.destination.prefixlen,
            "table": _MAIN_TABLE,
            "proto": system.mark.protocol,
            "scope": _UNIVERSE,
            "type": _UNICAST,
        }
        what = f"route {self.destination} via {self.via}"
        flags = netlink.CREATE | netlink.REPLACE
        system.network.queue(self.namespace, netlink.request(what, netlink.NEWROUTE, flags, fields, attributes))

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        place = ("-n", self.namespace) if self.namespace else ()
        destination = "default" if self.destination == _ANYWHERE else str(self.destination)
        return (
            Command(("ip", *place, "route", "add", destination, "via", str(self.via), "dev", self.link,
                     "proto", str(mark.protocol))),
        )  # fmt: skip


def discover_addresses(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find the addresses on links of ours: whatever is there was put there by us or does not belong there."""
    for namespace in _places(system, wanted):
        view = system.network.view(namespace)
        for name, state in view.links.items() if view else ():
            if state.group != system.mark.group or name == "lo":
                continue
            for address in sorted(view.addresses_of(name) if view else ()):
                yield Found(
                    _address_identity(namespace, name, address), _address_remover(namespace, state.index, address)
                )


def discover_routes(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find the routes that carry our protocol number."""
    for namespace in _places(system, wanted):
        view = system.network.view(namespace)
        for route in sorted(view.routes, key=lambda route: route.destination) if view else ():
            if route.protocol == system.mark.protocol:
                yield Found(_route_identity(namespace, route.destination), _route_remover(namespace, route))


def _places(system: System, wanted: frozenset[str]) -> Iterator[str | None]:
    """Yield the host's own namespace and those that stay; one that goes takes its addresses and routes along."""
    yield None
    for name in system.network.namespaces():
        if Namespace(name).identity not in wanted:
            continue
        view = system.network.view(name)
        if view and view.loopback_group == system.mark.group:
            yield name


def _address_remover(namespace: str | None, index: int, address: IPv4Interface) -> Callable[[System], None]:
    def remove(system: System) -> None:
        fields = {"family": AF_INET, "prefixlen": address.network.prefixlen, "index": index}
        what = f"remove address {address}"
        item = netlink.request(what, netlink.DELADDR, 0, fields, [("IFA_LOCAL", str(address.ip))])
        system.network.queue(namespace, item)

    return remove


def _route_remover(namespace: str | None, route: RouteState) -> Callable[[System], None]:
    def remove(system: System) -> None:
        attributes: list[tuple[str, netlink.Value]] = [("RTA_OIF", route.link)]
        if route.via:
            attributes.append(("RTA_GATEWAY", str(route.via)))
        if route.destination != _ANYWHERE:
            attributes.append(("RTA_DST", str(route.destination.network_address)))
        fields = {
            "family": AF_INET,
            "dst_len": route.destination.prefixlen,
            "table": _MAIN_TABLE,
            "proto": route.protocol,
            "scope": _UNIVERSE if route.via else _LINK_SCOPE,
            "type": _UNICAST,
        }
        what = f"remove the route to {route.destination}"
        system.network.queue(namespace, netlink.request(what, netlink.DELROUTE, 0, fields, attributes))

    return remove


def _address_identity(namespace: str | None, link: str, address: IPv4Interface) -> str:
    return f"address {address} on {_place(namespace)}{link}"


def _route_identity(namespace: str | None, destination: IPv4Network) -> str:
    return f"route {_place(namespace)}{destination}"


def _place(namespace: str | None) -> str:
    return f"{namespace}/" if namespace else ""
