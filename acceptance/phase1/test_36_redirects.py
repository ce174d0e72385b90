"""The host tells nobody of a shorter way: a neighbour that took it would go around the rules and the translation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from acceptance.modules import LabHost
from acceptance.suite import flows
from acceptance.suite.stage import Stage
from underlay.wait import NotYet, until

#: Per link and for all of them; either is enough (IN_DEV_TX_REDIRECTS, include/linux/inetdevice.h).
_SWITCH = "net.ipv4.conf.all.send_redirects"


def _redirects(host: LabHost) -> int:
    """Return how many ICMP redirects a host has sent (proc_net(5), RFC 2011)."""
    shown = host.file("/proc/net/snmp").content_string.splitlines()
    names, values = (line.split() for line in shown if line.startswith("Icmp:"))
    return int(values[names.index("OutRedirects")])


@contextmanager
def _switched_on(host: LabHost) -> Iterator[None]:
    was = host.sysctl(_SWITCH)
    host.check_output("sysctl -qw %s=1", _SWITCH)
    try:
        yield
    finally:
        host.check_output("sysctl -qw %s=%s", _SWITCH, str(was))


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

        with _switched_on(host):
            until(told, deadline_s=stage.plan.timeouts.ready, what=f"a redirect, with {_SWITCH}", where=host.name)
