"""The tunnel of phase 3, by hand from kernel primitives. Pure: the plan and a host in, chapters of resources out."""

from __future__ import annotations

from dataclasses import replace

from provision import guard as rules
from provision.guard import Ground, Way
from provision.kernel.network import Neighbour
from provision.marks import Mark
from provision.phase3.facts import Facts
from provision.plug import INNER, mac, plugged
from provision.resource import Resource, Section
from provision.resources.ip import Address
from provision.resources.link import Bridge
from provision.resources.neighbours import EVERYBODY, Behind, Forwarding, Neighbours
from provision.resources.rules import Chain, Jump, Table
from provision.resources.sysctl import Sysctl
from provision.resources.tagged import Untagged
from provision.resources.vxlan import Vxlan
from provision.router import shown_to_rules
from underlay.topology import Replica, Stretched, flow_pairs
from underlay.topology.tunnel import BRIDGE, DEVICE

#: All users but root (uid_t; the last number is that of nobody at all).
_NOT_ROOT = "1-4294967294"


def guard(stretched: Stretched, host: str, mark: Mark) -> Section:
    """Return the rules."""
    ground = Ground(
        bridges=(BRIDGE,),
        ways=tuple(
            Way(source.ip, item.ip, target.port, f"{source.name} to {item.name}", BRIDGE)
            for source, target, item in flow_pairs(stretched.plan)
        ),
        leaving=(),
        doors=(),
        inside=(),
    )
    tables = (rules.last(ground, mark), rules.polite(ground, mark))
    return Section(
        "The guard, before there is a wire",
        "One tier on two hosts, and the same rules on both: a frame passes one host's on its way into the tunnel, the "
        "other's when it comes out. VXLAN itself asks nobody who he is: whoever can send UDP to its port puts frames "
        "into the tier. So only the other hosts of the tunnel may; and who goes out by way of this host, which lends "
        "him its address, may not go there; nor may who is not root on this host. Frames with a VLAN tag are not shown "
        "to iptables: they are dropped where they come in.",
        (*(_with_peers(table, stretched, host, mark) for table in tables), Untagged(_ports(stretched, host))),
    )


def _with_peers(table: Table, stretched: Stretched, host: str, mark: Mark) -> Table:
    """Add who may send packets of the tunnel to the host, and to another by way of it: nobody, whom it would hide.

    Nothing is routed here, so no policy is wanted.
    """
    name, deny = f"{mark.chain}PEERS", f"{mark.chain}DENY"
    ends = [stretched.endpoint(peer) for peer in stretched.peers(host)]
    wrapped = f"-p udp -m udp --dport {stretched.plan.tunnel.port}"
    return replace(
        table,
        chains=(*table.chains, Chain(name, (*(f"-s {end}/32 -j RETURN" for end in ends), f"-j {deny}"))),
        jumps=(
            *table.jumps,
            Jump("INPUT", name, wrapped),  # a VXLAN hears on every address of its host, broadcasts as well
            *(Jump("FORWARD", deny, f"-d {end}/32 {wrapped}") for end in ends),
            # The tunnel's own packets are of no socket, and so of nobody.
            *(Jump("OUTPUT", deny, f"-d {end}/32 {wrapped} -m owner --uid-owner {_NOT_ROOT}") for end in ends),
        ),
        policies=(),
    )


def _ports(stretched: Stretched, host: str) -> tuple[str, ...]:
    return (DEVICE, *(item.link for item in _replicas(stretched, host)))


def shown() -> Section:
    """Return what makes the guard see frames."""
    return Section(
        "Bridged frames are shown to the guard",
        "Frames that a bridge hands on pass no routing, and no rule of iptables, unless the kernel is told so.",
        (shown_to_rules(),),
    )


def bridge(stretched: Stretched, host: str) -> Section:
    """Return the switch."""
    address = stretched.bridges[host]
    return Section(
        "A bridge",
        "The tier's switch on this host. Its own address is for the host alone: the guard's refusals take their way "
        f"by it. Its MTU is {stretched.plan.underlay.mtu - stretched.mtu} bytes less than the underlay's: so much a "
        "VXLAN adds.",
        (
            Bridge(BRIDGE, stretched.mtu, mac(address.ip)),
            Sysctl(None, f"net.ipv6.conf.{BRIDGE}.disable_ipv6", "1", of_link=BRIDGE),
            Address(None, BRIDGE, address),
        ),
    )


def device(stretched: Stretched, host: str, facts: Facts) -> Section:
    """Return the bridge's port that leads to the other hosts, and its forwarding table."""
    plan, local = stretched.plan, stretched.endpoint(host)
    return Section(
        "A port that leads to the other host",
        "A VXLAN device wraps each frame into a UDP packet to another host. It could learn who is where from what "
        "arrives, and would believe anybody: so it is told, and so is the bridge who is behind it. Each neighbour's "
        "MAC address has an entry; what is for everybody, such as the question of ARP, goes to every other host.",
        (
            Vxlan(DEVICE, plan.tunnel.vni, plan.tunnel.port, local, facts.underlay_link, BRIDGE, stretched.mtu,
                  mac(local)),
            Sysctl(None, f"net.ipv6.conf.{DEVICE}.disable_ipv6", "1", of_link=DEVICE),
            Forwarding(DEVICE, _forwarding(stretched, host)),
            Behind(DEVICE, frozenset(entry.mac for entry in _forwarding(stretched, host)) - {EVERYBODY}),
        ),
    )  # fmt: skip


def _forwarding(stretched: Stretched, host: str) -> frozenset[Neighbour]:
    found = set()
    for peer in stretched.peers(host):
        end = stretched.endpoint(peer)
        found |= {Neighbour(EVERYBODY, end), Neighbour(mac(stretched.bridges[peer].ip), end)}
        found |= {Neighbour(mac(item.ip), end) for item in _replicas(stretched, peer)}
    return frozenset(found)


def namespaces(stretched: Stretched, host: str) -> Section:
    """Return the namespaces, plugged in."""
    resources: list[Resource] = []
    for service in stretched.plan.services_on(host):
        for item in service.replicas:
            resources += plugged(stretched.mtu, BRIDGE, service, item)
            far = (other for peer in stretched.peers(host) for other in _replicas(stretched, peer))
            resources.append(
                Neighbours(item.namespace, INNER, frozenset(Neighbour(mac(other.ip), other.ip) for other in far))
            )
    return Section(
        "A namespace for each replica, plugged in",
        "As in phase 1. That its neighbours are on another host it cannot see; where they are is written down, so that "
        "it need not ask through the tunnel.",
        tuple(resources),
    )


def _replicas(stretched: Stretched, host: str) -> tuple[Replica, ...]:
    return tuple(item for service in stretched.plan.services_on(host) for item in service.replicas)
