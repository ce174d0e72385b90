"""Drift: whatever of the tunnel is broken by hand, `check` names it and nothing else, and `converge` mends only it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest

from acceptance.conftest import LastSeen
from acceptance.kernel import difference, snapshot
from acceptance.phase3.stage import ByTunnel
from acceptance.provisioning import provision
from acceptance.suite import flows
from acceptance.suite.stage import Seat
from underlay.topology.tunnel import BRIDGE, DEVICE

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

#: A MAC address of nobody, locally administered.
_NOBODY = "02:00:00:00:00:99"
#: Linux's own port for VXLAN, from before IANA gave it one (ip-link(8), dstport).
_OLD_PORT = "8472"
_LINK, _TABLE, _BEHIND = f"link {DEVICE}", f"forwarding table of {DEVICE}", f"who is behind {DEVICE}"
#: The table that drops frames with a tag, and a group that nobody has (RFC 2365: of this site).
_TAGGED, _GROUP = "bridge underlay-phase3", "239.192.1.1"
#: How INPUT leads to the chain that asks who sends.
_TO_PEERS = "-m comment --comment 'underlay phase3' -j PHASE3-PEERS"
#: How OUTPUT denies who is not root.
_NOT_ROOT = "-m owner --uid-owner 1-4294967294 -m comment --comment 'underlay phase3' -j PHASE3-DENY"
#: What shows bridged frames to rules.
_SHOWN = "net.bridge.bridge-nf-call-iptables"
#: What goes with the device, or with the bridge it is plugged into.
_WITH_DEVICE = (_TABLE, _BEHIND, f".{DEVICE}.")


@dataclass(frozen=True, slots=True)
class Victim:
    """What is broken: a replica, its link inside, somebody at the other end, and both ends' addresses."""

    seat: Seat
    inner: str
    far: Seat
    far_mac: str
    local: str
    remote: str
    wire: str
    group: str
    vni: int
    port: int
    mtu: int
    nobody: IPv4Address

    def made(self, **changed: str) -> list[str]:
        """Return the commands that make the device again as it was, but for what is changed."""
        words = {
            "id": str(self.vni),
            "dstport": str(self.port),
            "local": self.local,
            "learning": "nolearning",
            "dev": self.wire,
            "more": "",
        } | changed
        made = f"ip link add {DEVICE} group {self.group} mtu {self.mtu} type vxlan id {words['id']}"
        made += f" dstport {words['dstport']} local {words['local']}"
        return [
            f"ip link delete {DEVICE}",
            f"{made} dev {words['dev']} {words['learning']} {words['more']}",
            f"ip link set {DEVICE} master {BRIDGE} up",
        ]

    def entry(self, verb: str, mac: str, end: str) -> str:
        """Return the command that changes the forwarding table."""
        return f"bridge fdb {verb} {mac} dev {DEVICE} dst {end}"

    def astray(self, words: str) -> list[str]:
        """Return the commands that send frames for somebody at the other end otherwise than the device does."""
        entry = self.far_mac, self.remote
        return [self.entry("delete", *entry), f"{self.entry('append', *entry)} {words}"]

    def neighbour(self, verb: str, mac: str = "") -> str:
        """Return the command that changes who is written down."""
        words = f"lladdr {mac} nud permanent" if mac else ""
        return f"ip -n {self.seat.name} neighbour {verb} {self.far.address} {words} dev {self.inner}"


@dataclass(frozen=True, slots=True)
class Drift:
    """A way to break something: commands on the host, what `check` must name, and words of what may follow."""

    commands: Callable[[Victim], Sequence[str]]
    named: Callable[[Victim], str] = lambda victim: _LINK
    follows: Callable[[Victim], tuple[str, ...]] = lambda victim: ()


def _with(*words: str) -> Callable[[Victim], tuple[str, ...]]:
    return lambda victim: words


def _inside(victim: Victim) -> tuple[str, ...]:
    name = victim.seat.name
    return (f" {name}/", f" on {name}/", victim.seat.replica.link)


DRIFTS: Mapping[str, Drift] = {
    "device deleted": Drift(lambda v: [f"ip link delete {DEVICE}"], follows=_with(*_WITH_DEVICE)),
    "device down": Drift(lambda v: [f"ip link set {DEVICE} down"]),
    "device unplugged": Drift(lambda v: [f"ip link set {DEVICE} nomaster"], follows=_with(_BEHIND)),
    "device's mtu": Drift(lambda v: [f"ip link set {DEVICE} mtu 1300"], follows=_with(f"link {BRIDGE}")),
    "device's mac": Drift(lambda v: [f"ip link set {DEVICE} address {_NOBODY}"]),
    "another VNI": Drift(lambda v: v.made(id=str(v.vni + 1)), follows=_with(*_WITH_DEVICE)),
    "another port": Drift(lambda v: v.made(dstport=_OLD_PORT), follows=_with(*_WITH_DEVICE)),
    "another source": Drift(lambda v: v.made(local=str(v.seat.tier.gateway.ip)), follows=_with(*_WITH_DEVICE)),
    "it learns": Drift(lambda v: v.made(learning="learning"), follows=_with(*_WITH_DEVICE)),
    "on another link": Drift(lambda v: v.made(dev="lo"), follows=_with(*_WITH_DEVICE)),
    "sends to a group": Drift(lambda v: v.made(more=f"group {_GROUP}"), follows=_with(*_WITH_DEVICE)),
    "something else of its name": Drift(
        lambda v: [
            f"ip link delete {DEVICE}",
            f"ip link add {DEVICE} group {v.group} mtu {v.mtu} type veth peer name v-p3-nobody",
            f"ip link set {DEVICE} master {BRIDGE} up",
        ],
        follows=_with(*_WITH_DEVICE),
    ),
    "bridge learns": Drift(lambda v: [f"bridge link set dev {DEVICE} learning on"]),
    "nothing unknown is sent": Drift(lambda v: [f"bridge link set dev {DEVICE} flood off"]),
    "forgotten who is behind it": Drift(
        lambda v: [f"bridge fdb delete {v.far_mac} dev {DEVICE} master"], lambda v: _BEHIND
    ),
    "a stranger is behind it": Drift(
        lambda v: [f"bridge fdb add {_NOBODY} dev {DEVICE} master static"], lambda v: _BEHIND
    ),
    "entry that goes by itself": Drift(
        lambda v: [v.entry("delete", v.far_mac, v.remote), f"{v.entry('append', v.far_mac, v.remote)} dynamic"],
        lambda v: _TABLE,
    ),
    "entry forgotten": Drift(lambda v: [v.entry("delete", v.far_mac, v.remote)], lambda v: _TABLE),
    "entry for others forgotten": Drift(lambda v: [v.entry("delete", "00:00:00:00:00:00", v.remote)], lambda v: _TABLE),
    "entry of a stranger": Drift(lambda v: [v.entry("append", _NOBODY, v.remote)], lambda v: _TABLE),
    "entry that leads elsewhere": Drift(lambda v: [v.entry("replace", v.far_mac, v.local)], lambda v: _TABLE),
    "entry to another port": Drift(
        lambda v: [
            v.entry("delete", v.far_mac, v.remote),
            f"{v.entry('append', v.far_mac, v.remote)} port {_OLD_PORT}",
        ],
        lambda v: _TABLE,
    ),
    "entry of another network": Drift(
        lambda v: v.astray(f"vni {v.vni + 1}"),
        lambda v: _TABLE,
    ),
    "second place for others": Drift(lambda v: [v.entry("append", "00:00:00:00:00:00", v.local)], lambda v: _TABLE),
    "neighbour forgotten": Drift(lambda v: [v.neighbour("delete")], lambda v: f"neighbours on {v.seat.name}/{v.inner}"),
    "neighbour elsewhere": Drift(
        lambda v: [v.neighbour("replace", _NOBODY)], lambda v: f"neighbours on {v.seat.name}/{v.inner}"
    ),
    "neighbour of a stranger": Drift(
        lambda v: [f"ip -n {v.seat.name} neighbour add {v.nobody} lladdr {_NOBODY} nud permanent dev {v.inner}"],
        lambda v: f"neighbours on {v.seat.name}/{v.inner}",
    ),
    "bridge deleted": Drift(
        lambda v: [f"ip link delete {BRIDGE}"],
        lambda v: f"link {BRIDGE}",
        lambda v: (_LINK, _BEHIND, f" on {BRIDGE}", f".{BRIDGE}.", "link v-p3-"),
    ),
    "address removed": Drift(
        lambda v: [f"ip address flush dev {BRIDGE}"],
        lambda v: f" on {BRIDGE}",
    ),
    "address of another network": Drift(
        lambda v: [f"ip address add {v.nobody}/32 dev {BRIDGE}"], lambda v: f" on {BRIDGE}"
    ),
    "another address inside": Drift(
        lambda v: [f"ip -n {v.seat.name} address add {v.nobody}/32 dev {v.inner}"],
        lambda v: f" on {v.seat.name}/{v.inner}",
    ),
    "namespace deleted": Drift(
        lambda v: [f"ip netns delete {v.seat.name}"], lambda v: f"namespace {v.seat.name}", _inside
    ),
    "cable pulled": Drift(
        lambda v: [f"ip link set {v.seat.replica.link} nomaster"], lambda v: f"link {v.seat.replica.link}"
    ),
    "frames not shown": Drift(lambda v: [f"sysctl -qw {_SHOWN}=0"], lambda v: f"sysctl {_SHOWN}"),
    "tags pass": Drift(lambda v: [f"nft delete table {_TAGGED}"], lambda v: "nftables bridge"),
    "tags pass by a rule": Drift(lambda v: [f"nft flush chain {_TAGGED} tagged"], lambda v: "nftables bridge"),
    "everybody may send to the other end": Drift(
        lambda v: [
            f"iptables -w -D OUTPUT -d {v.remote}/32 -p udp -m udp --dport {v.port} {_NOT_ROOT}",
        ],
        lambda v: "iptables filter",
    ),
    "rule deleted": Drift(lambda v: ["iptables -w -F PHASE3-TO"], lambda v: "iptables filter"),
    "last rule deleted": Drift(lambda v: ["iptables -w -t security -F PHASE3-FROM"], lambda v: "iptables security"),
    "strangers let in": Drift(lambda v: ["iptables -w -F PHASE3-PEERS"], lambda v: "iptables filter"),
    "nobody asks who sends": Drift(
        lambda v: [f"iptables -w -D INPUT -p udp -m udp --dport {v.port} {_TO_PEERS}"],
        lambda v: "iptables filter",
    ),
}


@pytest.fixture
def victim(tunnel: ByTunnel, called: Seat, caller: Seat) -> Victim:
    """Return what is broken: at the end of those who are called."""
    end = tunnel.ends()[called.host]
    planned = tunnel.plan.tunnel
    return Victim(
        seat=called,
        inner=tunnel.inner(called).name,
        far=caller,
        far_mac=tunnel.mac(caller),
        local=str(tunnel.stretched.endpoint(called.host)),
        remote=str(tunnel.stretched.endpoint(caller.host)),
        wire=end.vxlan(DEVICE).underlay,
        group=end.links[DEVICE].group,
        vni=planned.vni,
        port=planned.port,
        mtu=tunnel.stretched.mtu,
        nobody=tunnel.plan.tunnel.subnet.broadcast_address - 1,
    )


@pytest.mark.parametrize("kind", DRIFTS)
def test_drift_is_named_and_mended(tunnel: ByTunnel, victim: Victim, last_seen: LastSeen, kind: str) -> None:
    host, drift = tunnel.machine(victim.seat), DRIFTS[kind]
    before, named = last_seen.snapshots[host.name].lines(), drift.named(victim)
    try:
        host.run(["sh", "-e", "-c", "\n".join(drift.commands(victim))])
        checked = provision(host, "check", tunnel.phase)
    finally:
        mended = provision(host, "converge", tunnel.phase)
    left = difference(before, snapshot(host).lines())
    assert checked.exit_code == 1, f"{host.name}: expected: check finds {kind} (exit 1); seen: {checked}"
    assert mended.exit_code == 0, f"{host.name}: expected: converge mends {kind}; seen: {mended}"
    for report in (checked, mended):
        assert any(named in name for name in report.resources), f"{host.name}: expected: {named}; seen: {report}"
        words = (named, *drift.follows(victim))
        others = [name for name in report.resources if not any(word in name for word in words)]
        assert not others, f"{host.name}: expected: {named} alone; seen besides: {others}"
    assert not left, f"{host.name}: expected: the same kernel state as before; seen:\n{left}"


def test_everything_is_as_planned_again(tunnel: ByTunnel) -> None:
    for end in tunnel.ends().values():
        host = end.machine
        made = provision(host, "converge", tunnel.phase)
        assert (made.exit_code, made.resources) == (0, ()), f"{host.name}: expected: 0 changes; seen: {made}"
    flows.assert_all(tunnel)
