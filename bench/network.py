"""The network that every contender builds: N namespaces on one bridge, each with an address and a default route.

Each contender gets it in its own words, made here from one list: resources, an `explain` script, `ip -batch` files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from provision.explain import explain
from provision.marks import Mark, Places
from provision.plug import INNER, mac
from provision.resource import Kind, Phase, Resource, Section
from provision.resources import ip, link, namespace
from provision.resources.ip import Address, Route
from provision.resources.link import Bridge, Veth
from provision.resources.namespace import Namespace

#: A bridge has at most 1024 ports (BR_PORT_BITS, net/bridge/br_private.h), of which the kernel hands out 1023.
LARGEST = 1023
BRIDGE = "br0"
MARK = Mark("bench", 9, Places(state=Path("/run/bench-state")))
#: The address of the bridge, and way out of every namespace. From a range set aside for measurements (RFC 2544).
GATEWAY = IPv4Interface("198.18.0.1/16")
_FIRST = 256  # hosts are numbered from 198.18.1.0
_MTU = 1500
_ANYWHERE = IPv4Network("0.0.0.0/0")

#: The kinds of resource of which the list is made; no other is looked for.
KINDS = (
    Kind((Route,), ip.discover_routes),
    Kind((Address,), ip.discover_addresses),
    Kind((Bridge, Veth), link.discover, link.remove_all),
    Kind((Namespace,), namespace.discover),
)


@dataclass(frozen=True, slots=True)
class Node:
    """One namespace: its name, the name of its link's outer end, and its address."""

    namespace: str
    link: str
    address: IPv4Interface


def nodes(size: int) -> tuple[Node, ...]:
    """Return that many nodes, each with names and an address of its own."""
    subnet = GATEWAY.network
    return tuple(
        Node(f"n{number}", f"v{number}", IPv4Interface((subnet[_FIRST + number], subnet.prefixlen)))
        for number in range(size)
    )


def phase(size: int) -> Phase:
    """Return the network as the list of resources that provisioning works on."""
    resources: list[Resource] = [Bridge(BRIDGE, _MTU, mac(GATEWAY.ip)), Address(None, BRIDGE, GATEWAY)]
    for node in nodes(size):
        resources += [
            Namespace(node.namespace),
            Veth(node.link, BRIDGE, node.namespace, INNER, _MTU, mac(node.address.ip)),
            Address(node.namespace, INNER, node.address),
            Route(node.namespace, _ANYWHERE, GATEWAY.ip, INNER),
        ]
    return Phase(MARK, (Section("A network to measure", "One bridge, a namespace on each port.", tuple(resources)),))


def script_up(size: int) -> str:
    """Return the `explain` script of the very same list: one `ip` process a step."""
    return explain(phase(size), "bench")


def script_down(size: int) -> str:
    """Return the shell script that a person would write to take it away: one `ip` process a step."""
    lines = [f"ip netns del {node.namespace}" for node in nodes(size)]
    return "\n".join(["set -eu", *lines, f"ip link del {BRIDGE}", ""])


@dataclass(frozen=True, slots=True)
class Batches:
    """What `ip -batch` reads. ``outside`` needs one process; ``inside`` one for each namespace, by its name."""

    outside: str
    inside: dict[str, str]
    down: str


def batches(size: int) -> Batches:
    """Return the same network in the fewest processes and steps that `ip -batch` needs for it.

    A step does as much as `ip` lets it: a pair is made with both ends' names, addresses and groups, one end in its
    namespace and the other up and a port of the bridge. What lies inside a namespace needs a process in there.
    """
    group = MARK.group
    outside = [
        f"link add {BRIDGE} address {mac(GATEWAY.ip)} mtu {_MTU} group {group} up type bridge",
        f"address add {GATEWAY} broadcast + dev {BRIDGE}",
    ]
    inside: dict[str, str] = {}
    for node in nodes(size):
        outside += [
            f"netns add {node.namespace}",
            f"link add {node.link} up mtu {_MTU} group {group} master {BRIDGE} type veth {_peer(node)}",
        ]
        inside[node.namespace] = _text(
            f"link set lo group {group} up",
            f"link set {INNER} up",
            f"address add {node.address} broadcast + dev {INNER}",
            f"route add default via {GATEWAY.ip} dev {INNER} proto {MARK.protocol}",
        )
    # The kernel removes a whole group of links at once, which is quicker than with each namespace.
    down = [f"link del group {group}", *(f"netns del {node.namespace}" for node in nodes(size))]
    return Batches(_text(*outside), inside, _text(*down))


def write_batches(size: int, directory: Path) -> None:
    """Write the batch files and the two scripts ``up`` and ``down`` that feed them to `ip`; ``floor`` feeds one."""
    made = batches(size)
    (directory / "outside").write_text(made.outside)
    (directory / "removal").write_text(made.down)
    for name, text in made.inside.items():
        (directory / f"inside-{name}").write_text(text)
    (directory / "floor").write_text(_text("set -eu", f"exec ip -batch {directory / 'outside'}"))
    (directory / "up").write_text(_text("set -eu", *_processes(made, directory)))
    (directory / "down").write_text(_text("set -eu", f"exec ip -batch {directory / 'removal'}"))


def _processes(made: Batches, directory: Path) -> Iterator[str]:
    yield f"ip -batch {directory / 'outside'}"
    for name in made.inside:
        yield f"ip -n {name} -batch {directory / f'inside-{name}'}"


def _peer(node: Node) -> str:
    address = mac(node.address.ip)
    return f"peer name {INNER} netns {node.namespace} address {address} mtu {_MTU} group {MARK.group}"


def _text(*lines: str) -> str:
    return "\n".join([*lines, ""])
