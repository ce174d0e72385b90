"""A replica's network namespace, plugged into a bridge: the same in every phase that is made by hand. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address

from provision.resource import Resource
from provision.resources.ip import Address
from provision.resources.link import Veth
from provision.resources.namespace import Namespace
from provision.resources.sysctl import Sysctl
from underlay.topology import Replica, Service

#: The link inside a replica's namespace, named as Docker names it.
INNER = "eth0"


def plugged(mtu: int, bridge: str, service: Service, replica: Replica) -> tuple[Resource, ...]:
    """Return a replica's namespace, its cable into a bridge, and its address."""
    name = replica.namespace
    return (
        Namespace(name),
        Sysctl(name, "net.ipv6.conf.all.disable_ipv6", "1"),
        Sysctl(name, "net.ipv6.conf.default.disable_ipv6", "1"),
        # A port below 1024 needs no root here: nobody else shares this namespace.
        Sysctl(name, "net.ipv4.ip_unprivileged_port_start", str(min(service.port, 1024))),
        Veth(replica.link, bridge, name, INNER, mtu, mac(replica.ip)),
        Sysctl(None, f"net.ipv6.conf.{replica.link}.disable_ipv6", "1", of_link=replica.link),
        Address(name, INNER, replica.address),
    )


def mac(address: IPv4Address) -> str:
    """Return a locally administered unicast MAC address (IEEE 802: bit 1 of the first octet) made of an IPv4 one."""
    return "02:4c:" + ":".join(f"{octet:02x}" for octet in address.packed)
