"""Checks of the plan's parts against each other. Each notes what it finds and goes on."""

from __future__ import annotations

from underlay.topology.check_addresses import check_addresses
from underlay.topology.derive import bridge_name, link_name, replica_name
from underlay.topology.docker import PORT_STEP, REGISTRY_PORT, NoRoomError, in_containers
from underlay.topology.draft import Draft, ServiceDraft
from underlay.topology.model import Plan, Program
from underlay.topology.notes import Notes, join, show, suggest
from underlay.topology.tunnel import PREFIX, NoAddressError, across

#: Whom a program cannot work without.
_NEEDS = {
    Program.NGINX: (Program.GATEWAY,),
    Program.GATEWAY: (Program.PRODUCT, Program.ORDER),
    Program.PRODUCT: (Program.POSTGRES,),
    Program.ORDER: (Program.POSTGRES,),
    Program.REDIS: (),
    Program.POSTGRES: (),
}
_SINGLE = (Program.REDIS, Program.POSTGRES)
_PUBLIC = (Program.NGINX, Program.GATEWAY)
_LEAST_HOSTS = 2
#: Ports of a Linux bridge: BR_MAX_PORTS is 1024 (linux net/bridge/br_private.h); some are left for other links.
_MOST_PORTS = 1000
#: TCP ports that a host itself listens on, now or in a later phase (Swarm's: docs.docker.com/engine/swarm).
_HOST_PORTS = {
    22: "sshd",
    53: "the DNS server",
    2377: "Swarm's managers",
    REGISTRY_PORT: "the registry of phase 2",
    7946: "Swarm's nodes",
}
#: UDP ports that a host itself listens on, or has from others.
_HOST_UDP_PORTS = {53: "the DNS server", 67: "DHCP", 68: "DHCP", 7946: "Swarm's nodes"}
_LAST_PORT = 65535
_RESERVED = "localhost"


def check(notes: Notes, draft: Draft) -> None:
    """Note every mistake that shows only when parts of the plan are held against each other."""
    _check_hosts(notes, draft)
    check_addresses(notes, draft)
    _check_services(notes, draft)
    _check_tiers(notes, draft)
    if _check_flows(notes, draft):
        _check_needs(notes, draft)
    _check_published(notes, draft)
    _check_published_by_docker(notes, draft)
    _check_names(notes, draft)
    _check_interfaces(notes, draft)
    _check_tunnel(notes, draft)


def check_rooms(notes: Notes, draft: Draft, plan: Plan) -> None:
    """Note what shows only in a plan that is good in itself: what does not fit into Docker's pool, or the tunnel."""
    try:
        in_containers(plan)
    except NoRoomError as error:
        pool = draft.pools.docker
        what = f"pools.docker {plan.pools.docker} has no room for the networks of phase 2: {error}"
        notes.add(pool.line if pool else 1, what, "give it a shorter prefix, such as /16")
    try:
        across(plan)
    except NoAddressError as error:
        subnet = draft.tunnel.subnet
        what = f"tunnel.subnet {plan.tunnel.subnet} has no room for all who talk through it: {error}"
        notes.add(subnet.line if subnet else 1, what, "give it a shorter prefix, such as /24")


def _check_hosts(notes: Notes, draft: Draft) -> None:
    if draft.hosts is not None and len(draft.hosts) < _LEAST_HOSTS:
        what = f"hosts: there {'is 1' if draft.hosts else 'are 0'}; expected at least {_LEAST_HOSTS}"
        notes.add(draft.hosts_line, what, "add another, with an address on the underlay")


def _check_tunnel(notes: Notes, draft: Draft) -> None:
    port = draft.tunnel.port
    if port is not None and port.value in _HOST_UDP_PORTS:
        what = f"tunnel.port: UDP port {port.value} of a host belongs to {_HOST_UDP_PORTS[port.value]}"
        notes.add(port.line, what, "take VXLAN's own, 4789 (RFC 7348), or 8472")


def _check_services(notes: Notes, draft: Draft) -> None:
    for service in draft.services or ():
        place = join("services", service.name.value)
        if service.tier and draft.tiers is not None:
            tiers = [tier.name.value for tier in draft.tiers]
            if service.tier.value not in tiers:
                what = f"{place}.tier is {show(service.tier.value)}; there is no such tier"
                notes.add(service.tier.line, what, suggest(service.tier.value, tiers))
        if service.host and draft.hosts is not None:
            hosts = [host.name.value for host in draft.hosts]
            if service.host.value not in hosts:
                what = f"{place}.host is {show(service.host.value)}; there is no such host"
                notes.add(service.host.line, what, suggest(service.host.value, hosts))
        if service.program and service.replicas and service.program.value in _SINGLE and service.replicas.value > 1:
            what = f"{place}.replicas is {service.replicas.value}; program {service.program.value} takes exactly 1"
            hint = "nobody copies the data from one to the other; leave `replicas` out"
            notes.add(service.replicas.line, what, hint)


def _check_tiers(notes: Notes, draft: Draft) -> None:
    known = {host.name.value for host in draft.hosts or ()}
    carriers: dict[str, ServiceDraft] = {}
    ports: dict[str, int] = {}
    for service in draft.services or ():
        if service.tier is None or service.host is None:
            continue
        tier = service.tier.value
        if service.host.value in known:
            carrier = carriers.setdefault(tier, service)
            if carrier.host and carrier.host.value != service.host.value:
                what = f"{join('services', service.name.value)} is on {service.host.value}, but "
                what += (
                    f"{join('services', carrier.name.value)} (line {carrier.name.line}) of the same tier {tier} is on "
                )
                hint = "a tier is one bridge on one host; "
                notes.add(service.host.line, what + carrier.host.value, hint + "give this service a tier of its own")
        if service.replicas:
            before = ports.get(tier, 0)
            ports[tier] = before + service.replicas.value
            if before <= _MOST_PORTS < ports[tier]:
                what = f"tier {tier} has more than {_MOST_PORTS} replicas up to {join('services', service.name.value)}"
                notes.add(service.replicas.line, what, "a Linux bridge has 1024 ports: use another tier")


def _check_flows(notes: Notes, draft: Draft) -> bool:
    if draft.services is None:
        return False
    names = [service.name.value for service in draft.services]
    seen: dict[tuple[str, str], int] = {}
    good = draft.flows_read
    for flow in draft.flows:
        arrow = f"flow {flow.source} -> {flow.target}"
        for end in dict.fromkeys((flow.source, flow.target)):
            if end not in names:
                notes.add(flow.line, f"{arrow}: there is no service '{end}'", suggest(end, names))
                good = False
        if flow.source == flow.target:
            what = f"{arrow} leads from a service to itself"
            notes.add(flow.line, what, "remove it: replicas of one service do not talk to each other")
        if (flow.source, flow.target) in seen:
            what = f"{arrow} is already on line {seen[flow.source, flow.target]}"
            notes.add(flow.line, what, "remove one of the two")
        seen.setdefault((flow.source, flow.target), flow.line)
    return good


def _check_needs(notes: Notes, draft: Draft) -> None:
    services = draft.services or ()
    programs = {service.name.value: service.program.value for service in services if service.program}
    if len(programs) < len(services):
        return  # what the others run is not known, so nothing can be said to be lacking
    for service in services:
        name = service.name.value
        reached = {programs[flow.target] for flow in draft.flows if flow.source == name}
        for needed in _NEEDS[programs[name]]:
            if needed in reached:
                continue
            what = f"{join('services', name)} runs program {programs[name]}, which needs a flow to a service with "
            candidates = [other for other, program in programs.items() if program is needed]
            hint = (
                f"add `- {name} -> {candidates[0]}` to flows" if candidates else f"add a service with program {needed}"
            )
            notes.add(service.name.line, f"{what}program {needed}; there is none", hint)


def _check_published(notes: Notes, draft: Draft) -> None:
    services = {service.name.value: service for service in draft.services or ()}
    hosts = [host.name.value for host in draft.hosts or ()]
    seen: dict[tuple[str, int], int] = {}
    for entry in draft.published:
        host, port, name = entry.host, entry.port, entry.service
        if host and draft.hosts is not None and host.value not in hosts:
            what = f"publish: there is no host {show(host.value)}"
            notes.add(host.line, what, suggest(host.value, hosts))
        if name and draft.services is not None and name.value not in services:
            what = f"publish: there is no service {show(name.value)}"
            notes.add(name.line, what, suggest(name.value, services))
        if port and port.value in _HOST_PORTS:
            what = f"publish: port {port.value} of a host belongs to {_HOST_PORTS[port.value]}"
            notes.add(port.line, what, "choose another, such as 8080")
        if host and port:
            if (host.value, port.value) in seen:
                what = (
                    f"publish: {show(host.value)[1:-1]}:{port.value} is already on line {seen[host.value, port.value]}"
                )
                notes.add(port.line, what, "choose another port")
            seen.setdefault((host.value, port.value), port.line)
        service = services.get(name.value) if name else None
        if service is not None and name is not None:
            if (
                host
                and service.host
                and host.value != service.host.value
                and {host.value, service.host.value} <= {*hosts}
            ):
                what = f"publish: service {name.value} runs on {service.host.value}, not on {host.value}"
                notes.add(host.line, what, "publish it on the host it runs on")
            if service.program and service.program.value not in _PUBLIC:
                what = f"publish: service {name.value} runs program {service.program.value}; expected nginx or gateway"
                notes.add(name.line, what, "only these two answer to the world; publish one that leads to it")


def _check_published_by_docker(notes: Notes, draft: Draft) -> None:
    """Docker publishes each port, too, all of them on one host, under another number."""
    taken = {(entry.host.value, entry.port.value): entry.port.line for entry in draft.published
             if entry.host and entry.port}  # fmt: skip
    host = draft.published[0].host if draft.published else None
    seen: dict[int, int] = {}
    for entry in draft.published:
        if host is None or entry.host is None or entry.port is None:
            continue
        port, line = entry.port.value + PORT_STEP, entry.port.line
        what = f"publish: phase 2 publishes {entry.port.value} as {port} of {host.value}"
        if port > _LAST_PORT:
            notes.add(line, f"{what}, but there is no port above {_LAST_PORT}", "choose a lower one, such as 8080")
        elif port in _HOST_PORTS:
            notes.add(line, f"{what}, which belongs to {_HOST_PORTS[port]}", "choose another, such as 8080")
        elif (host.value, port) in taken:
            notes.add(line, f"{what}, which line {taken[host.value, port]} publishes", "choose another, such as 8080")
        elif port in seen and (entry.host.value, entry.port.value) != (host.value, entry.port.value):
            what += f", as it does with line {seen[port]}"
            notes.add(line, what, "choose another number: Docker has all containers on one host")
        seen.setdefault(port, line)


def _check_names(notes: Notes, draft: Draft) -> None:
    owners: dict[str, str] = {}
    for host in draft.hosts or ():
        owners[host.name.value] = f"a host (line {host.name.line})"
    owners[_RESERVED] = "every machine's own loopback"
    for host in draft.hosts or ():
        if host.name.value == _RESERVED:
            notes.add(host.name.line, f"hosts.{_RESERVED}: the name is that of {owners[_RESERVED]}", "choose another")
    services = draft.services or ()
    for service in services:
        name = service.name
        if name.value in owners:
            what = f"{join('services', name.value)}: the name is also that of {owners[name.value]}"
            notes.add(name.line, what, "choose another name: both would be one name in messages and DNS")
        owners.setdefault(name.value, f"a service (line {name.line})")
    for service in services:
        for number in range(1, service.replicas.value + 1 if service.replicas else 1):
            replica = replica_name(service.name.value, number)
            if replica in owners:
                what = (
                    f"{join('services', service.name.value)}: its replica {replica} has the name of {owners[replica]}"
                )
                notes.add(service.name.line, what, "choose another name: both would be one name in DNS")


def _check_interfaces(notes: Notes, draft: Draft) -> None:
    derived = [
        (bridge_name(tier.name.value), join("tiers", tier.name.value), tier.name.line) for tier in draft.tiers or ()
    ]
    for service in draft.services or ():
        for number in range(1, service.replicas.value + 1 if service.replicas else 1):
            replica = replica_name(service.name.value, number)
            derived.append((link_name(replica), f"replica {replica}", service.name.line))
            if service.program and service.program.value in (Program.GATEWAY, Program.PRODUCT):
                derived.append((link_name(PREFIX + replica), f"replica {replica} in the tunnel", service.name.line))
    seen: dict[str, tuple[str, int]] = {}
    for name, owner, line in derived:
        if name in seen and seen[name][0] != owner:
            other, other_line = seen[name]
            what = f"{owner} and {other} (line {other_line}) would both have the interface {name}"
            notes.add(line, what, "rename one of them, best to something shorter")
        seen.setdefault(name, (owner, line))
