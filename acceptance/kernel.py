"""What the kernel of a host says: typed for questions, and as lines of text for comparisons."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from acceptance.observe import CONTAINER
from underlay.hosts.base import Machine
from underlay.hosts.resident import HELPER

_COUNTER = re.compile(r"^\[(\d+):\d+\] ")
_OWN_NETWORK = "/proc/self/ns/net"
#: Who says that a rule in a chain of others is his.
_PHASE = re.compile(r'--comment "underlay (\w+)"')
#: What Docker keeps on a host by itself when it runs (its documentation, "Bridge network driver"), how it calls its end
#: of a container's cable, and how the addresses of its bridges begin.
_DOCKER_BRIDGE = "docker0"
_DOCKER_CABLE = re.compile(r"veth[0-9a-f]{7}")
_DOCKER_MAC = "02:42:"
#: What stands in the words of a process of this suite. What the helper on a host forks has the helper's.
_OF_SUITE = (" acceptance.", " ".join(HELPER))


@dataclass(frozen=True, slots=True)
class Link:
    """A link; ``peer`` is the other end of a veth pair as (namespace or None, name), if it can be told."""

    name: str
    kind: str
    index: int
    mtu: int
    up: bool
    master: str | None
    group: str
    mac: str
    peer_index: int | None
    peer_namespace_id: int | None
    addresses: tuple[IPv4Interface, ...]
    addresses6: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table."""

    destination: IPv4Network
    via: IPv4Address | None
    link: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Place:
    """One network namespace; ``name`` None is the host's own."""

    name: str | None
    links: Mapping[str, Link]
    routes: tuple[Route, ...]
    policy: tuple[str, ...]
    parameters: Mapping[str, str]

    def with_address(self, address: IPv4Address) -> Link:
        """Return the link that has the address; KeyError if none has."""
        for link in self.links.values():
            if any(item.ip == address for item in link.addresses):
                return link
        raise KeyError(str(address))


@dataclass(frozen=True, slots=True)
class Process:
    """A process; ``namespace`` None is the host's own; ``first`` says that its parent is not in the same one."""

    words: str
    namespace: str | None
    first: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of one host at one moment."""

    host: str
    root: Place
    namespaces: Mapping[str, Place]
    namespace_ids: Mapping[int, str]
    rules: tuple[str, ...]
    bridge_rules: tuple[str, ...]
    told: tuple[str, ...]
    listeners: tuple[str, ...]
    processes: tuple[Process, ...]
    files: tuple[str, ...]
    users: tuple[str, ...]

    def peer(self, link: Link) -> tuple[str, Link] | None:
        """Return the peer of a link of the host's own namespace: its namespace and itself."""
        name = self.namespace_ids.get(-1 if link.peer_namespace_id is None else link.peer_namespace_id)
        if name is None or name not in self.namespaces:
            return None
        inner = (item for item in self.namespaces[name].links.values() if item.index == link.peer_index)
        return next(((name, item) for item in inner), None)

    def plain_rules(self) -> Iterator[str]:
        """Yield the rules without counters; tables in which nothing was ever decided are left out."""
        for table in _tables(self.rules):
            if any(not re.fullmatch(r"\*\w+|COMMIT|:\w+ ACCEPT .*", line) for line in table):
                for line in table:
                    yield re.sub(r" \[\d+:\d+\]$", "", _COUNTER.sub("", line))

    def policy(self, chain: str) -> str:
        """Return the policy of a chain of the filter table; ACCEPT if nothing was ever decided there."""
        rules = list(self.plain_rules())
        rest = rules[rules.index("*filter") :] if "*filter" in rules else []
        return next((line.split()[1] for line in rest if line.startswith(f":{chain} ")), "ACCEPT")

    def lines(self, *, files: bool = False) -> frozenset[str]:
        """Return the kernel's state as lines: the same state gives the same lines, on whatever day it was made."""
        found = set(self._place_lines(self.root))
        for place in self.namespaces.values():
            found |= {f"namespace {place.name}", *self._place_lines(place)}
        found |= {f"user {name}" for name in self.users}
        found |= {f"iptables {number}: {line}" for number, line in _numbered(self.plain_rules())}
        found |= {f"nftables {line}" for line in _by_table(self.bridge_rules)}
        found |= {f"forwarding: {line}" for line in self.told}
        if files:
            found |= {f"file {line}" for line in self.files}
        return frozenset(f"{self.host}: {line}" for line in found)

    def surroundings(self) -> frozenset[str]:
        """Return what a test could leave behind.

        That is: listeners of the host, how many processes of this suite there are, and in each namespace the processes
        that have no parent there, of which a service has one: more are what a killed program has left.
        """
        lines = [f"listener {line}" for line in self.listeners]
        ours = Counter(item.words for item in self.processes if any(words in item.words for words in _OF_SUITE))
        lines += [f"{count} processes {words}" for words, count in ours.items()]
        # Health checks come and go.
        firsts = Counter(
            item.namespace for item in self.processes if item.namespace not in {None, CONTAINER} and item.first
        )
        lines += [f"{count} first processes in {name}" for name, count in firsts.items()]
        return frozenset(f"{self.host}: {line}" for line in lines)

    def _place_lines(self, place: Place) -> Iterator[str]:
        where = f"{place.name}/" if place.name else ""
        # Docker's end of a container's cable has another name after each start.
        of_docker = Counter(link.master for link in place.links.values() if _is_cable(link.name))
        yield from (f"{count} containers on {bridge}" for bridge, count in of_docker.items())
        for link in place.links.values():
            if place.name is None and (link.name == _DOCKER_BRIDGE or _is_cable(link.name)):
                continue
            peer = self.peer(link) if place.name is None else None
            # The host's end of a veth pair has a MAC address of chance, and nobody asks for it; Docker's bridges, too.
            mac = "" if peer or link.mac.startswith(_DOCKER_MAC) else f" mac={link.mac}"
            other = f" peer={peer[0]}/{peer[1].name}" if peer else ""
            yield (
                f"link {where}{link.name} kind={link.kind} mtu={link.mtu} up={link.up} master={link.master} "
                f"group={link.group}{mac}{other}"
            )
            for address in link.addresses:
                yield f"address {where}{link.name} {address}"
            # A link-local IPv6 address follows from the MAC address, which may be one of chance.
            yield f"address {where}{link.name} has {len(link.addresses6)} of IPv6"
        for route in place.routes:
            yield f"route {where}{route.destination} via {route.via} dev {route.link} proto {route.protocol}"
        yield from (f"policy {where}{line}" for line in place.policy)
        for key, value in place.parameters.items():
            if place.name is None and any(_is_cable(word) for word in key.split(".")):
                continue
            yield f"sysctl {where}{key} = {value}"


def snapshot(machine: Machine, *, files: bool = False) -> Snapshot:
    """Ask a host for its state; ``files`` also asks for the files that phases own."""
    words = ["python3", "-m", "acceptance.observe", *(["files"] if files else [])]
    data = json.loads(machine.run(words).stdout)
    places = [_place(item) for item in data["places"]]
    return Snapshot(
        host=machine.name,
        root=places[0],
        namespaces={str(place.name): place for place in places[1:]},
        namespace_ids={item["id"]: item["name"] for item in data["namespace_ids"] if "id" in item},
        rules=tuple(data["rules"].splitlines()),
        bridge_rules=tuple(data["bridge_rules"]),
        told=tuple(data["told"]),
        listeners=tuple(data["listeners"]),
        processes=tuple(Process(item["words"], item["namespace"], item["first"]) for item in data["processes"]),
        files=tuple(data["files"]),
        users=tuple(data["users"]),
    )


def of_docker(link: Link) -> bool:
    """Whether Docker made a link: its bridges have addresses of a kind of their own, a container's cable a name."""
    return _is_cable(link.name) or (link.kind == "bridge" and link.mac.startswith(_DOCKER_MAC))


def _is_cable(name: str) -> bool:
    return _DOCKER_CABLE.fullmatch(name) is not None


def packets(machine: Machine, pattern: str) -> int:
    """Ask a host how many packets its rules have counted that match a regular expression."""
    rules = machine.run(["iptables-save", "--counters"]).stdout.splitlines()
    counted = ((_COUNTER.match(line), line) for line in rules)
    return sum(int(found[1]) for found, line in counted if found and re.search(pattern, line))


def in_own_network(machine: Machine) -> bool:
    """Whether a machine's network is that of the process that asks: then it is not the lab's to change or to try."""
    return machine.run(["readlink", _OWN_NETWORK]).stdout.strip() == str(Path(_OWN_NETWORK).readlink())


def difference(before: frozenset[str], after: frozenset[str]) -> str:
    """Return what changed, a line each, or an empty text."""
    lines = [*(f"- {line}" for line in sorted(before - after)), *(f"+ {line}" for line in sorted(after - before))]
    return "\n".join(lines)


def _place(data: dict[str, object]) -> Place:
    links, routes, policy, parameters = (data[key] for key in ("links", "routes", "policy", "parameters"))
    assert isinstance(links, list)
    assert isinstance(routes, list)
    assert isinstance(policy, list)
    assert isinstance(parameters, dict)
    name = data["name"]
    return Place(
        name=None if name is None else str(name),
        links={item["ifname"]: link_of(item) for item in links},
        routes=tuple(_route(item) for item in routes if item.get("table", "main") == "main"),
        policy=tuple(f"{item['priority']} {item['src']} {item['table']}" for item in policy),
        parameters=parameters,
    )


def link_of(data: dict[str, object]) -> Link:
    """Return a link from what ``ip -details -json address show`` says of it."""
    flags, info, found = data["flags"], data.get("linkinfo", {}), data["addr_info"]
    assert isinstance(flags, list)
    assert isinstance(info, dict)
    assert isinstance(found, list)
    return Link(
        name=str(data["ifname"]),
        kind=str(info.get("info_kind", data["link_type"])),
        index=_number(data["ifindex"]),
        mtu=_number(data["mtu"]),
        up="UP" in flags,
        master=str(data["master"]) if "master" in data else None,
        group=str(data.get("group", "default")),
        mac=str(data.get("address", "")),
        peer_index=_number(data["link_index"]) if "link_index" in data else None,
        peer_namespace_id=_number(data["link_netnsid"]) if "link_netnsid" in data else None,
        addresses=tuple(
            IPv4Interface(f"{item['local']}/{item['prefixlen']}") for item in found if item["family"] == "inet"
        ),
        addresses6=tuple(item["local"] for item in found if item["family"] == "inet6"),
    )


def _route(data: dict[str, object]) -> Route:
    via = data.get("gateway")
    text = "0.0.0.0/0" if data["dst"] == "default" else str(data["dst"])
    return Route(
        IPv4Network(text),
        None if via is None else IPv4Address(str(via)),
        str(data.get("dev", "")),
        str(data.get("protocol", "boot")),
    )


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _tables(rules: tuple[str, ...]) -> Iterator[list[str]]:
    table: list[str] = []
    for line in rules:
        if line.startswith("#"):
            continue
        table.append(line)
        if line == "COMMIT":
            yield table
            table = []


def _by_table(lines: Sequence[str]) -> Iterator[str]:
    """Return what nft(8) lists, each line with the table that it is of: which comes first is as it happens."""
    table = ""
    for line in lines:
        if line.startswith("table "):
            table = line.removesuffix(" {")
        yield f"{table}: {line.strip()}"


def _numbered(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Return rules with their number in their chain, since their order counts.

    Of those in chains of others each phase's are numbered for themselves, and the others' not at all: who comes first
    there is as it happens (Docker, whenever it starts), and decides nothing (test_30_guard).
    """
    table, seen = "", Counter[str]()
    for line in lines:
        if line.startswith("*"):
            table = line[1:]
        if not line.startswith("-A"):
            yield table, line
            continue
        chain, phase = line.split()[1], _PHASE.search(line)
        group = f"{table} {chain}" + (f" {phase[1]}" if phase else "")
        seen[group] += 1
        yield (f"{group} {seen[group]}" if phase or chain.startswith("PHASE") else group), line
