"""The host tells nobody of a shorter way, and hears of none: who took it would go around rules and translations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from acceptance.modules import LabHost
from acceptance.suite import flows
from acceptance.suite.stage import Stage
from underlay.wait import NotYet, until

#: Sends a redirect (RFC 792) as a router does: SENDER RECEIVER DESTINATION BETTER_ROUTER. What it quotes is an echo's
#: answer, since for others the kernel wants to see a socket (icmp_err, net/ipv4/icmp.c).
_REDIRECT = """
import socket, struct, sys
sender, receiver, target, better = (socket.inet_aton(word) for word in sys.argv[1:])
def summed(data, at):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return data[:at] + struct.pack("!H", ~total & 0xFFFF) + data[at + 2:]
quoted = summed(struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 1, 0, receiver, target), 10) + bytes(8)
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as link:
    link.bind((sys.argv[1], 0))
    link.sendto(summed(struct.pack("!BBH4s", 5, 1, 0, better) + quoted, 2), (sys.argv[2], 0))
"""
#: An address that is nowhere (RFC 2544).
_NOWHERE = "198.18.7.1"
#: How often it is told.
_TIMES = 3
#: For all links and for the one it comes by: a host that forwards takes redirects if both say so (IN_DEV_RX_REDIRECTS).
_TAKES = "net.ipv4.conf.{}.accept_redirects"
#: Per link and for all of them; either is enough (IN_DEV_TX_REDIRECTS, include/linux/inetdevice.h).
_SWITCH = "net.ipv4.conf.all.send_redirects"


def _redirects(host: LabHost) -> int:
    """Return how many ICMP redirects a host has sent (proc_net(5), RFC 2011)."""
    shown = host.file("/proc/net/snmp").content_string.splitlines()
    names, values = (line.split() for line in shown if line.startswith("Icmp:"))
    return int(values[names.index("OutRedirects")])


@contextmanager
def _switched_on(host: LabHost, *switches: str) -> Iterator[None]:
    before = {switch: host.sysctl(switch) for switch in switches}
    try:
        for switch in switches:
            host.check_output("sysctl -qw %s=1", switch)
        yield
    finally:
        for switch, was in before.items():
            host.check_output("sysctl -qw %s=%s", switch, str(was))


def test_no_redirect_to_a_neighbour(stage: Stage) -> None:
    """Somebody who asks the gateway for the way to a neighbour on his own bridge gets his packet there, and no more."""
    allowed = (pair for pair in flows.all_pairs(stage.plan) if pair.allowed)
    pair = next((pair for pair in allowed if pair.source.tier == pair.target.tier), None)
    if pair is None:
        pytest.skip("by the plan, nobody may connect to anybody in his own tier")
    source, target = stage.seat(pair.source), stage.seat(pair.target)
    space, host, prober = stage.inside(source), LabHost(stage.machine(source), stage.plan), stage.prober(source.host)
    way = f"{target.address}/32 via {source.tier.gateway.ip}"
    with ExitStack() as stack:
        stack.callback(space.check_output, "ip route flush cache")
        stack.callback(space.check_output, f"ip route delete {way}")
        space.check_output(f"ip route add {way}")
        before = _redirects(host)
        prober.one(source.attempt("tcp", target.address, target.service.port)).assert_connected()
        seen = _redirects(host) - before
        assert seen == 0, f"{host.name}: expected: it sends no redirect to {space.name}; seen: {seen}"

        def told() -> bool | NotYet:  # not each time: the kernel sends few of them (ip_rt_send_redirect, route.c)
            prober.one(source.attempt("tcp", target.address, target.service.port)).assert_connected()
            return _redirects(host) > before or NotYet("none")

        with _switched_on(host, _SWITCH):
            until(told, deadline_s=stage.plan.timeouts.ready, what=f"a redirect, with {_SWITCH}", where=host.name)


def test_no_redirect_is_taken_from_a_neighbour(stage: Stage, busy_host: str) -> None:
    """A router tells the host of a better one for some address: the host's way there stays as it was."""
    lab = stage.lab
    told = LabHost(lab.hosts[busy_host], stage.plan)
    neighbour = LabHost(next(item for item in lab.hosts.values() if item.name != busy_host), stage.plan)
    own, router, better = told.machine.address, neighbour.machine.address, stage.plan.underlay.gateway.ip
    link = re.findall(r" dev (\S+)", told.check_output("ip route get %s", str(router)))[0]

    def way() -> str:
        neighbour.check_output("python3 -c %s %s %s %s %s", _REDIRECT, *map(str, (router, own, _NOWHERE, better)))
        return str(re.findall(r" via (\S+)", told.check_output("ip route get %s", _NOWHERE))[0])

    def taken() -> bool | NotYet:
        told.check_output("ping -c 1 -W 1 %s", str(better))  # a router that is no neighbour is none
        seen = way()
        return seen == str(better) or NotYet(f"by way of {seen}")

    with ExitStack() as stack:
        stack.callback(told.check_output, "ip route flush cache")
        stack.callback(told.check_output, f"ip route delete {_NOWHERE}")
        told.check_output(f"ip route add {_NOWHERE} via {router}")
        told.check_output("ping -c 1 -W 1 %s", str(better))
        for _ in range(_TIMES):
            seen = way()
            assert seen == str(router), f"{told.name}: expected: the way by {router} stays; seen: by {seen}"
        with _switched_on(told, *(_TAKES.format(where) for where in ("all", link))):
            until(taken, deadline_s=stage.plan.timeouts.ready, what=f"it is taken, with {_TAKES}", where=told.name)
