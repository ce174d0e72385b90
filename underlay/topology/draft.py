"""The plan as it was written: each section read by itself, with lines, before anything is checked against the rest.

None stands for a value that is wrong or missing and has been noted; checks pass over it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from yaml import MappingNode

from underlay.topology.model import Program
from underlay.topology.nodes import Section, section, text, wrong
from underlay.topology.notes import Marked, Notes, join, show, suggest

#: Where a service begins to number its replicas when the plan does not say.
FIRST = 10
#: ``first`` of a service that takes the next free numbers.
NEXT_FREE = 0

#: Bytes that a VXLAN adds to a frame's payload: the headers of IPv4, UDP and VXLAN and the inner Ethernet's
#: (RFC 7348, section 5).
OVERHEAD = 20 + 8 + 8 + 14
#: Below 1280 bytes (RFC 8200, section 5) Linux takes IPv6 away from a link, and with it the switch that keeps it off.
LEAST_MTU = 1280 + OVERHEAD
MOST_REPLICAS = 100
_LONGEST_LAB = 20
_LAST_PORT = 65535
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,29}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123, section 2.1
#: A name is at most 253 characters long (RFC 1035, section 2.3.4); the longest before the domain is 31 + 4 + a dot.
_LONGEST_DOMAIN = 253 - 36
_TIER_PREFIX = (8, 28)
_UNDERLAY_PREFIX = (8, 29)
_TUNNEL_PREFIX = (8, 30)
#: Docker and Swarm cut their pools into /24 networks.
_POOL_PREFIX = (8, 24)


@dataclass(frozen=True, slots=True)
class HostDraft:
    """A host as written."""

    name: Marked[str]
    address: Marked[IPv4Address] | None
    cpus: Marked[int] | None
    memory: Marked[int] | None


@dataclass(frozen=True, slots=True)
class UnderlayDraft:
    """The underlay as written."""

    subnet: Marked[IPv4Network] | None
    gateway: Marked[IPv4Address] | None
    mtu: Marked[int] | None


@dataclass(frozen=True, slots=True)
class TierDraft:
    """A tier as written."""

    name: Marked[str]
    subnet: Marked[IPv4Network] | None


@dataclass(frozen=True, slots=True)
class ServiceDraft:
    """A service as written; ``first`` is NEXT_FREE when the plan leaves it to us."""

    name: Marked[str]
    tier: Marked[str] | None
    host: Marked[str] | None
    program: Marked[Program] | None
    port: Marked[int] | None
    first: Marked[int] | None
    replicas: Marked[int] | None
    egress: bool


@dataclass(frozen=True, slots=True)
class FlowDraft:
    """A flow as written."""

    source: str
    target: str
    line: int


@dataclass(frozen=True, slots=True)
class PublishedDraft:
    """A published port as written; ``line`` is where the entry begins."""

    host: Marked[str] | None
    port: Marked[int] | None
    service: Marked[str] | None
    line: int


@dataclass(frozen=True, slots=True)
class TunnelDraft:
    """The tunnel as written."""

    vni: Marked[int] | None
    port: Marked[int] | None
    subnet: Marked[IPv4Network] | None


@dataclass(frozen=True, slots=True)
class PoolsDraft:
    """The pools as written."""

    docker: Marked[IPv4Network] | None
    swarm: Marked[IPv4Network] | None


@dataclass(frozen=True, slots=True)
class TimeoutsDraft:
    """The time-outs as written, in seconds."""

    connect: Marked[float] | None
    command: Marked[float] | None
    ready: Marked[float] | None
    cache: Marked[float] | None


@dataclass(frozen=True, slots=True)
class Draft:
    """The whole plan as written. ``flows_read`` says whether no flow is wrong or under another key."""

    lab: Marked[str] | None
    domain: Marked[str] | None
    hosts: tuple[HostDraft, ...] | None
    underlay: UnderlayDraft
    pools: PoolsDraft
    tiers: tuple[TierDraft, ...] | None
    services: tuple[ServiceDraft, ...] | None
    flows: tuple[FlowDraft, ...]
    flows_read: bool
    published: tuple[PublishedDraft, ...]
    tunnel: TunnelDraft
    timeouts: TimeoutsDraft
    hosts_line: int


def read(notes: Notes, root: MappingNode) -> Draft:
    """Read the plan's root mapping; what cannot be read is noted."""
    required = ("lab", "domain", "hosts", "underlay", "pools", "tiers", "services", "tunnel", "timeouts")
    plan = Section(notes, "", root.start_mark.line + 1, root, required, ("flows", "publish"))
    hosts = _hosts(notes, plan)
    flows, flows_read = _flows(notes, plan)
    return Draft(
        lab=_lab(notes, plan.text("lab")),
        domain=_domain(notes, plan.text("domain")),
        hosts=hosts,
        underlay=_underlay(plan),
        pools=_pools(plan),
        tiers=_tiers(notes, plan),
        services=_services(notes, plan),
        flows=flows,
        flows_read=flows_read,
        published=_published(notes, plan),
        tunnel=_tunnel(plan),
        timeouts=_timeouts(plan),
        hosts_line=plan.line_of("hosts"),
    )


def _lab(notes: Notes, lab: Marked[str] | None) -> Marked[str] | None:
    if lab is not None and _name_is_good(notes, f"lab: {show(lab.value)}", lab) and len(lab.value) > _LONGEST_LAB:
        notes.add(lab.line, f"lab is {len(lab.value)} characters long; expected at most {_LONGEST_LAB}", "shorten it")
    return lab


def _domain(notes: Notes, domain: Marked[str] | None) -> Marked[str] | None:
    if domain is None:
        return None
    labels = domain.value.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        what = f"domain is {show(domain.value)}; expected a DNS name of lower-case letters, digits and hyphens"
        notes.add(domain.line, what, "a name such as shop.internal, without a dot at its end")
    elif len(domain.value) > _LONGEST_DOMAIN:
        what = f"domain is {len(domain.value)} characters long; expected at most {_LONGEST_DOMAIN}"
        notes.add(domain.line, what, "DNS names end at 253 characters, the service's name included")
    return domain


def _hosts(notes: Notes, plan: Section) -> tuple[HostDraft, ...] | None:
    entries = plan.named("hosts")
    if entries is None:
        return None
    hosts = []
    for name, node in entries:
        place = join("hosts", name.value)
        if _name_is_good(notes, place, name) and "-" in name.value:
            notes.add(
                name.line,
                f"{place}: a host's name must not contain '-'",
                f"name it {name.value.replace('-', '')}; Vagrant's machine-readable output is split at hyphens",
            )
        body = section(notes, place, name.line, node, ("address",), ("cpus", "memory"))
        if body is None:
            hosts.append(HostDraft(name, None, None, None))
            continue
        address, cpus = body.address("address"), body.integer("cpus", 1, 256, 2)
        hosts.append(HostDraft(name, address, cpus, body.integer("memory", 256, 1024 * 1024, 1024)))
    return tuple(hosts)


def _underlay(plan: Section) -> UnderlayDraft:
    body = plan.section("underlay", ("subnet", "gateway"), ("mtu",))
    if body is None:
        return UnderlayDraft(None, None, None)
    # 9000: the usual jumbo frame
    return UnderlayDraft(
        body.subnet("subnet", *_UNDERLAY_PREFIX), body.address("gateway"), body.integer("mtu", LEAST_MTU, 9000, 1500)
    )


def _pools(plan: Section) -> PoolsDraft:
    body = plan.section("pools", ("docker", "swarm"))
    if body is None:
        return PoolsDraft(None, None)
    return PoolsDraft(body.subnet("docker", *_POOL_PREFIX), body.subnet("swarm", *_POOL_PREFIX))


def _tiers(notes: Notes, plan: Section) -> tuple[TierDraft, ...] | None:
    entries = plan.named("tiers")
    if entries is None:
        return None
    if not entries:
        notes.add(plan.line_of("tiers"), "tiers: there is none; expected at least one", "add one, with its subnet")
    tiers = []
    for name, node in entries:
        place = join("tiers", name.value)
        _name_is_good(notes, place, name)
        body = section(notes, place, name.line, node, ("subnet",))
        tiers.append(TierDraft(name, None if body is None else body.subnet("subnet", *_TIER_PREFIX)))
    return tuple(tiers)


def _services(notes: Notes, plan: Section) -> tuple[ServiceDraft, ...] | None:
    entries = plan.named("services")
    if entries is None:
        return None
    if not entries:
        notes.add(plan.line_of("services"), "services: there is none; expected at least one", "add what the lab runs")
    services = []
    for name, node in entries:
        place = join("services", name.value)
        _name_is_good(notes, place, name)
        required, optional = ("tier", "host", "program", "port"), ("first", "replicas", "egress")
        body = section(notes, place, name.line, node, required, optional)
        if body is None:
            services.append(ServiceDraft(name, None, None, None, None, None, None, egress=False))
            continue
        services.append(
            ServiceDraft(
                name=name,
                tier=body.text("tier"),
                host=body.text("host"),
                program=_program(notes, body),
                port=body.integer("port", 1, _LAST_PORT),
                first=body.integer("first", 1, 2**24, NEXT_FREE),
                replicas=body.integer("replicas", 1, MOST_REPLICAS, 1),
                egress=body.boolean("egress", default=False),
            )
        )
    return tuple(services)


def _program(notes: Notes, body: Section) -> Marked[Program] | None:
    word = body.text("program")
    if word is None:
        return None
    known = [program.value for program in Program]
    if word.value not in known:
        what = f"{body.place('program')} is {show(word.value)}; expected one of {', '.join(known)}"
        notes.add(word.line, what, suggest(word.value, known, "choose one of these"))
        return None
    return Marked(Program(word.value), word.line)


def _flows(notes: Notes, plan: Section) -> tuple[tuple[FlowDraft, ...], bool]:
    entries = plan.entries("flows")
    flows = []
    for place, node in entries or ():
        arrow = text(notes, place, node)
        if arrow is None:
            continue
        ends = [end.strip() for end in arrow.value.split("->")]
        if len(ends) == 2 and all(_NAME.fullmatch(end) for end in ends):
            flows.append(FlowDraft(ends[0], ends[1], arrow.line))
        else:
            wrong(notes, place, node, "expected two services such as 'edge -> gateway'", _arrow_hint(arrow.value))
    return tuple(flows), entries is not None and len(flows) == len(entries) and not plan.has_unknown_keys


def _arrow_hint(flow: str) -> str:
    if flow.count("->") > 1:
        return "write each arrow as an entry of its own"
    return "an entry is: who connects, ->, whom"


def _published(notes: Notes, plan: Section) -> tuple[PublishedDraft, ...]:
    published = []
    for place, node in plan.entries("publish") or ():
        line = node.start_mark.line + 1
        body = section(notes, place, line, node, ("host", "port", "service"))
        if body is not None:
            port = body.integer("port", 1, _LAST_PORT)
            published.append(PublishedDraft(body.text("host"), port, body.text("service"), line))
    return tuple(published)


def _tunnel(plan: Section) -> TunnelDraft:
    body = plan.section("tunnel", ("vni", "port", "subnet"))
    if body is None:
        return TunnelDraft(None, None, None)
    vni = body.integer("vni", 1, 2**24 - 1)  # 24 bits (RFC 7348, section 5)
    return TunnelDraft(vni, body.integer("port", 1, _LAST_PORT), body.subnet("subnet", *_TUNNEL_PREFIX))


def _timeouts(plan: Section) -> TimeoutsDraft:
    body = plan.section("timeouts", ("connect", "command", "ready", "cache"))
    if body is None:
        return TimeoutsDraft(None, None, None, None)
    low, high = 0.01, 24 * 60 * 60
    return TimeoutsDraft(
        body.seconds("connect", low, high),
        body.seconds("command", low, high),
        body.seconds("ready", low, high),
        body.seconds("cache", low, high),
    )


def _name_is_good(notes: Notes, place: str, name: Marked[str]) -> bool:
    if _NAME.fullmatch(name.value):
        return True
    what = f"{place} is no good name; expected a lower-case letter, then letters, digits or hyphens, 31 in all at most"
    better = re.sub(r"[^a-z0-9]+", "-", name.value.lower())[:31].strip("-")
    hint = f"for example {better}" if _NAME.fullmatch(better) else "begin with a letter"
    notes.add(name.line, f"{what}, the last no hyphen", hint)
    return False
