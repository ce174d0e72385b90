"""What Docker has made in the kernel and does not look at again: bridges, cables, rules.

Docker believes what it keeps itself. Whoever takes a bridge down, pulls a cable or flushes a table takes that from
under it, and it goes on calling everything well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from provision.docker import Said
from provision.kernel.network import View
from provision.marks import Mark
from provision.resource import Resource, Step
from provision.resources.rules import Saved, read, target_of
from provision.system import System

BRIDGE_NAME = "com.docker.network.bridge.name"
SILENT = "cannot be seen: Docker does not answer"
#: The chain in which Docker keeps networks apart, in versions that have one.
_APART = "DOCKER-ISOLATION-STAGE-1"
_DEFAULT = IPv4Network("0.0.0.0/0")


def bridge_differs(system: System, bridge: str, gateway: IPv4Interface) -> str | None:
    """Return what of a network's bridge is not as Docker made it."""
    root = system.network.root()
    state = root.links.get(bridge)
    if state is None:
        return f"its bridge {bridge} is missing"
    if not state.up:
        return f"its bridge {bridge} is down"
    return None if gateway in root.addresses_of(bridge) else f"its bridge {bridge} lacks {gateway}"


def mend_bridge(system: System, bridge: str, gateway: IPv4Interface) -> None:
    """Give a bridge back its address, and have it up."""
    if gateway not in system.network.root().addresses_of(bridge):
        system.run("ip", "address", "add", str(gateway), "broadcast", "+", "dev", bridge)
    system.run("ip", "link", "set", bridge, "up")
    system.network.forget(None)


def unplugged(found: Said, addresses: Sequence[tuple[str, IPv4Address]], system: System) -> str | None:
    """Return what a running container lacks of its network: a cable for each address, by its network, and a way out."""
    try:
        view = View(system.host, Path(f"/proc/{found.number('State', 'Pid')}/ns/net"))
    except (FileNotFoundError, ProcessLookupError):
        return "has ended meanwhile"
    bridges = {item.text("Name"): item.text("Options", BRIDGE_NAME) for item in system.docker.networks()}
    try:
        for network, address in addresses:
            if (what := _cable_differs(view, system.network.root(), address, bridges.get(network))) is not None:
                return f"its cable to {network} {what}"
        gateways = {item.text("Gateway") for item in found.at("NetworkSettings", "Networks").parts()} - {""}
        ways = {str(route.via) for route in view.routes if route.destination == _DEFAULT}
        return None if not gateways or ways & gateways else "has no way out: its default route is missing"
    finally:
        view.close()


def _cable_differs(view: View, root: View, address: IPv4Address, planned: str | None) -> str | None:
    inner = next(
        (link for link in view.links.values() if any(item.ip == address for item in view.addresses_of(link.name))), None
    )
    if inner is None:
        return f"is missing, or lacks {address}"
    outer = next((link for link in root.links.values() if link.index == inner.peer), None)
    if outer is None:
        return "has no end on the host"
    bridge = next((link.name for link in root.links.values() if link.index == outer.master), None)
    if bridge != planned:
        return f"is plugged into {bridge or 'nothing'}"
    return None if inner.up and outer.up else "is down"


@dataclass(frozen=True, slots=True)
class DockerRules(Resource):
    """The rules that Docker has made for itself, its networks and its containers.

    Only Docker makes them, when it starts; so it is started again if any is missing. ``networks`` are subnets with
    their bridges, of those that lead out; ``published`` the host's port, and address and port of a container.
    """

    program: str
    daemon: str
    networks: tuple[tuple[IPv4Network, str], ...]
    published: tuple[tuple[int, IPv4Address, int], ...]

    @property
    def identity(self) -> str:
        """See Resource."""
        return "Docker rules"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Resource."""
        return (self.daemon,)

    def observe(self, system: System) -> str | None:
        """See Resource."""
        if not system.docker.answers():
            return SILENT
        said = system.rules.answer()
        missing = list(self._missing(read(said, "filter"), read(said, "nat"), _addresses(system)))
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        return f"{missing[0]}{more}" if missing else None

    def apply(self, system: System) -> None:
        """See Resource. Those of networks came with the networks, if these were made just now."""
        system.docker.wait(system.timeouts.ready)
        system.rules.forget()
        if self.observe(system) is None:
            return
        system.supervisor.stop(self.program)
        system.supervisor.stopped(self.program)
        system.supervisor.start(self.program)
        system.docker.wait(system.timeouts.ready)
        system.rules.forget()
        system.network.forget(None)

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource: Docker makes them."""
        return ()

    def _missing(self, filters: Saved, nat: Saved, running: frozenset[str]) -> Iterator[str]:
        for table, saved, chain, target in (
            ("filter", filters, "FORWARD", "DOCKER-USER"),
            ("nat", nat, "PREROUTING", "DOCKER"),
            ("nat", nat, "OUTPUT", "DOCKER"),
        ):
            if not any(target_of(rule) == target for rule in saved.rules.get(chain, ())):
                yield f"{chain} of {table} does not lead to {target}"
        for subnet, bridge in self.networks:
            rule = f"-s {subnet} ! -o {bridge} -j MASQUERADE"
            if rule not in nat.rules.get("POSTROUTING", ()):
                yield f"POSTROUTING of nat lacks the rule: {rule}"
            apart = filters.rules.get(_APART)
            if apart is not None and not any(bridge in rule.split() for rule in apart):
                yield f"{_APART} of filter has no rule about {bridge}"
        for outer, address, inner in self.published:
            end = f"--dport {outer} -j DNAT --to-destination {address}:{inner}"
            # Docker makes it with the container.
            if str(address) in running and not any(rule.endswith(end) for rule in nat.rules.get("DOCKER", ())):
                yield f"DOCKER of nat does not lead port {outer} to {address}:{inner}"


def _addresses(system: System) -> frozenset[str]:
    """Return the addresses of all containers that run."""
    return frozenset(
        network.text("IPAddress")
        for item in system.docker.containers()
        if item.text("State", "Status") == "running"
        for network in item.at("NetworkSettings", "Networks").parts()
    )
