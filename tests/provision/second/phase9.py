"""A second phase for tests, beside phase 1: one service's worth of network, and the settings that both need."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network

from provision.kernel.network import Network
from provision.marks import Mark
from provision.phases import Definition
from provision.plug import mac
from provision.resource import Kind, Phase, Section
from provision.resources import ip, link, namespace, rules, sysctl
from provision.resources.ip import Address, Route
from provision.resources.link import Bridge, Veth
from provision.resources.namespace import Namespace
from provision.resources.rules import Chain, Jump, Table
from provision.resources.sysctl import Sysctl
from underlay.topology import Plan

MARK = Mark("phase9", 9)
_BRIDGE, _SPACE, _LINK = "br-ninth", "ninth-1", "ninth-1"
#: From a range set aside for measurements (RFC 2544): no plan's tier is there.
_GATEWAY, _ADDRESS = IPv4Interface("198.18.9.1/24"), IPv4Interface("198.18.9.10/24")
_ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
_ANYWHERE = IPv4Network("0.0.0.0/0")


def ask(plan: Plan, host: str, network: Network) -> None:
    """Nothing has to be asked."""


def build(plan: Plan, host: str, facts: None) -> Phase:
    """Return a namespace that may go anywhere, behind a guard of its own."""
    mtu = plan.underlay.mtu
    chain = MARK.chain + "FORWARD"
    return Phase(
        MARK,
        (
            Section(
                "A second network",
                "It forwards, and drops what it does not know, as phase 1 does.",
                (
                    Table(
                        "filter",
                        (
                            Chain(
                                chain,
                                (f"-i {_BRIDGE} -j ACCEPT", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
                            ),
                        ),
                        (Jump("FORWARD", chain, f"-i {_BRIDGE}"), Jump("FORWARD", chain, f"-o {_BRIDGE}")),
                        (("FORWARD", "DROP"),),
                    ),
                    Sysctl(None, "net.bridge.bridge-nf-call-iptables", "1"),
                    Sysctl(None, "net.ipv4.ip_forward", "1"),
                    Bridge(_BRIDGE, mtu, mac(_GATEWAY.ip)),
                    Sysctl(None, f"net.ipv6.conf.{_BRIDGE}.disable_ipv6", "1", of_link=_BRIDGE),
                    Address(None, _BRIDGE, _GATEWAY),
                    Namespace(_SPACE),
                    Veth(_LINK, _BRIDGE, _SPACE, "eth0", mtu, mac(_ADDRESS.ip)),
                    Address(_SPACE, "eth0", _ADDRESS),
                    Route(_SPACE, _ANYWHERE, _GATEWAY.ip, "eth0"),
                ),
            ),
        ),
    )


DEFINITION = Definition(
    mark=MARK,
    ask=ask,
    build=build,
    claims=lambda plan, host: frozenset({f"link {_BRIDGE}", f"namespace {_SPACE}"}),
    kinds=(
        Kind((Route,), ip.discover_routes),
        Kind((Address,), ip.discover_addresses),
        Kind((Bridge, Veth), link.discover, link.remove_all),
        Kind((Namespace,), namespace.discover),
        Kind((Sysctl,), sysctl.discover),
        Kind((Table,), rules.discover),
    ),
)
