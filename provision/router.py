"""The settings that make a host a router, which each phase holds that needs them. Pure."""

from __future__ import annotations

from provision.resource import Section
from provision.resources.sysctl import Sysctl

_BRIDGED_HINT = "load the kernel module br_netfilter: modprobe br_netfilter"


def host_parameters() -> Section:
    """Return the settings that make the host a router."""
    return Section(
        "The host becomes a router",
        "ip_forward lets packets pass between links. bridge-nf-call-iptables shows bridged frames to iptables: without "
        "it a rule between two ports of one bridge looks right and never matches. Redirects are turned off, since a "
        "neighbour that is told a shorter way would go around the address translation. A router takes none either: the "
        "kernel sees to that when ip_forward is written, so what the host had is written down before.",
        (
            shown_to_rules(),
            Sysctl(None, "net.ipv4.conf.all.send_redirects", "0"),
            Sysctl(None, "net.ipv4.conf.default.send_redirects", "0"),
            # Before ip_forward, which resets it in either direction (inet_forward_change, net/ipv4/devinet.c).
            Sysctl(None, "net.ipv4.conf.all.accept_redirects", "0"),
            Sysctl(None, "net.ipv4.ip_forward", "1"),
        ),
    )


def shown_to_rules() -> Sysctl:
    """Return the setting with which rules see frames that a bridge hands on."""
    return Sysctl(None, "net.bridge.bridge-nf-call-iptables", "1", missing_hint=_BRIDGED_HINT)
