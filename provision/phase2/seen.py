"""Looks at what Docker has made for one container; see under.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from provision.docker import Said
from provision.explain import lines_of
from provision.kernel.network import View
from provision.marks import Mark
from provision.phase1 import MARK as BY_HAND
from provision.phase1 import firewall
from provision.phase1 import network as by_hand
from provision.phase2.under import Beside, Bridge, Cable, Seen
from provision.resource import Resource
from provision.resources.docker.daemon import BRIDGE
from provision.resources.docker.kernel import BRIDGE_NAME
from provision.resources.file import TextFile
from provision.resources.rules import Saved, read
from provision.router import host_parameters
from provision.system import System
from underlay.errors import InputError, NotReady, Problem
from underlay.topology import Plan, Replica, Service

#: What Docker writes when it starts, when it makes a bridge, and in a container's namespace (moby, daemon/libnetwork,
#: daemon/oci_linux.go); of a bridge if the value is another one than the kernel's own.
_OF_HOST = ("net.ipv4.ip_forward",)
_OF_BRIDGE = {"net.ipv4.conf.{}.route_localnet": "0"}
_INSIDE = ("net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range")
_TABLES = ("filter", "nat")
_PROXY = "docker-proxy"
_DEFAULT = IPv4Network("0.0.0.0/0")
_KERNEL = 2  # RTPROT_KERNEL, include/uapi/linux/rtnetlink.h


def look(system: System, name: str) -> Seen:
    """Look at a container of this host. NotReady if it does not run, or Docker does not answer."""
    if not system.docker.answers():
        raise NotReady(Problem(system.host, "Docker does not answer", "bring it back: ./lab converge phase2"))
    found = system.docker.find("containers", name, "/json")
    pid = found.number("State", "Pid") if found else 0
    if found is None or not pid:
        what = f"expected: a container {name} that runs; seen: {'none' if found is None else 'it has stopped'}"
        raise NotReady(Problem(system.host, what, "bring it back: ./lab converge phase2"))
    space = Path(f"/proc/{pid}/ns/net")
    view, root = View(system.host, space), system.network.root()
    try:
        cables = tuple(_cables(view, root))
        bridges = {item.name: item for item in _bridges(system)}
        mine = [bridges[cable.bridge] for cable in cables if cable.bridge in bridges]
        routes = tuple(_routes(view))
    finally:
        view.close()
    enter = ("nsenter", f"--net={space}")
    inside = system.run(*enter, "iptables-save").stdout
    listening = system.run(*enter, "ss", "--listening", "--no-header", "--numeric", "--tcp", "--udp").stdout
    tables = system.rules.answer()
    addresses = {str(cable.address.ip) for cable in cables}
    return Seen(
        engine=system.docker.version(),
        name=name,
        forwarding=_sysctls(system, (), _OF_HOST),
        default=bridges.get(BRIDGE),
        bridges=tuple(mine),
        others=frozenset(bridges) - {BRIDGE},
        cables=cables,
        inner_sysctls=_sysctls(system, enter, _INSIDE),
        routes=routes,
        host=_read(tables),
        inside=_read(inside),
        proxies=tuple(argv for argv in _commands(_PROXY) if addresses & set(argv)),
        resolvers=tuple(sorted(_resolvers(listening))),
    )


def beside(plan: Plan, service: Service, replica: Replica) -> Beside:
    """Return how phase 1 does the same for a replica of the plan (not that of Docker)."""
    tier = plan.tier(service.tier)
    own = by_hand.namespace(plan, BY_HAND, service, tier, replica)
    names = [item for item in own if isinstance(item, TextFile)]
    published = [
        f"iptables -t {table.table} -A {chain.name} {rule}"
        for table in firewall.tables(plan, str(tier.host), BY_HAND)
        for chain in table.chains
        for rule in chain.rules
        if f"{replica.ip}:" in rule or (str(replica.ip) in rule and "DNAT" in rule)
    ]
    return Beside(
        router=_said(host_parameters().resources, BY_HAND),
        bridges=_said(by_hand.bridge(plan, tier), BY_HAND),
        namespace=_said([item for item in own if item not in names], BY_HAND),
        published=published,
        names=_said(names, BY_HAND),
    )


def replica_of(plan: Plan, name: str) -> tuple[Service, Replica]:
    """Return a replica of the plan by its name; InputError, with those that there are, if there is none."""
    found = {item.name: (service, item) for service, item in plan.replicas()}
    if name not in found:
        raise InputError(Problem("--under", f"the plan has no replica {name}", f"one of: {', '.join(found)}"))
    return found[name]


def _said(resources: Iterable[Resource], mark: Mark) -> list[str]:
    return [line for resource in resources for step in resource.say(mark) for line in lines_of(step)]


def _cables(view: View, root: View) -> Iterator[Cable]:
    by_index = {state.index: state for state in root.links.values()}
    for state in sorted(view.links.values(), key=lambda item: item.name):
        peer = by_index.get(state.peer)
        if state.kind != "veth" or peer is None or peer.master not in by_index:
            continue
        for address in sorted(view.addresses_of(state.name)):
            yield Cable(peer.name, by_index[peer.master].name, state.name, state.mac, state.mtu, address)


def _routes(view: View) -> Iterator[tuple[str, ...]]:
    names = {state.index: state.name for state in view.links.values()}
    for route in sorted(view.routes, key=lambda item: item.destination):
        if route.protocol != _KERNEL:
            destination = "default" if route.destination == _DEFAULT else str(route.destination)
            yield destination, *(("via", str(route.via)) if route.via else ()), "dev", names[route.link]


def _bridges(system: System) -> Iterator[Bridge]:
    """Yield the bridges of all of Docker's networks, also of those that others have made."""
    root = system.network.root()
    for said in system.docker.networks():
        name = _bridge_of(said)
        state = root.links.get(name)
        if said.text("Driver") == "bridge" and state is not None:
            written = {item.format(name): usual for item, usual in _OF_BRIDGE.items()}
            values = _sysctls(system, (), tuple(written))
            sysctls = {item: value for item, value in values.items() if value != written[item]}
            address: IPv4Interface | None = min(root.addresses_of(name), default=None)
            yield Bridge(said.text("Name"), name, state.mac, state.mtu, address, sysctls, state.up)


def _bridge_of(network: Said) -> str:
    return network.text("Options", BRIDGE_NAME) or f"br-{network.text('Id')[:12]}"


def _sysctls(system: System, enter: Sequence[str], names: Sequence[str]) -> Mapping[str, str]:
    """Return what they are now; a name may be of a link, in whose name a dot is a slash (sysctl(8))."""
    said = [system.run(*enter, "sysctl", "-n", name).stdout for name in names]
    return {name: " ".join(value.split()) for name, value in zip(names, said, strict=True)}


def _read(text: str) -> Mapping[str, Saved]:
    return {table: read(text, table) for table in _TABLES if f"*{table}\n" in text}


def _commands(program: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of all processes of a program, those of other users too."""
    for path in sorted(Path("/proc").glob("[0-9]*/cmdline"), key=lambda item: int(item.parent.name)):
        try:
            argv = tuple(path.read_text(encoding="utf-8", errors="replace").rstrip("\0").split("\0"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        if Path(argv[0]).name == program:
            yield argv


def _resolvers(listening: str) -> Iterator[str]:
    for line in listening.splitlines():
        protocol, _, _, _, place = line.split()[:5]
        if place.startswith("127.0.0.11:"):
            yield f"{protocol} {place}"
