"""Routes among those of others."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from provision.kernel.network import LinkState, Network, RouteState, View
from provision.marks import Mark
from provision.resources.ip import Route
from provision.supervisor import Supervisor
from provision.system import NotOurs, System
from underlay.topology import Timeouts

_TIER, _WAY, _ELSEWHERE = IPv4Network("10.77.3.0/24"), IPv4Address("192.168.56.12"), IPv4Address("192.168.56.99")
_MARK = Mark("phase1", 1)
_STATIC = 4  # RTPROT_STATIC, rtnetlink(7)


class Seen(View):
    """A namespace with one link and these routes."""

    def __init__(self, *routes: RouteState) -> None:
        self._seen = frozenset(routes)

    @cached_property
    def links(self) -> Mapping[str, LinkState]:
        return {"eth1": LinkState(2, "eth1", "veth", 1500, True, 0, 0, 0, "")}

    @cached_property
    def routes(self) -> frozenset[RouteState]:
        return self._seen


class Still(Network):
    """A host on which nothing changes, seen the same in each of its namespaces."""

    def __init__(self, view: View) -> None:
        super().__init__("host1")
        self._still = view

    def view(self, namespace: str | None) -> View:
        return self._still


def observe(tmp_path: Path, via: IPv4Address | None, protocol: int, namespace: str | None = None) -> str | None:
    view = Seen(*([RouteState(_TIER, via, 2, protocol)] if via else []))
    timeouts = Timeouts(connect=1, command=1, ready=1, cache=1)
    system = System("host1", _MARK, timeouts, Still(view), Supervisor("host1", 1, tmp_path / "socket"))
    return Route(namespace, _TIER, _WAY, "eth1").observe(system)


def test_a_route_of_ours_that_goes_elsewhere_is_a_difference(tmp_path: Path) -> None:
    assert observe(tmp_path, None, 0) == "is missing"
    assert observe(tmp_path, _WAY, _MARK.protocol) is None
    assert observe(tmp_path, _ELSEWHERE, _MARK.protocol) == f"goes via {_ELSEWHERE}, planned {_WAY} on eth1"
    assert observe(tmp_path, _ELSEWHERE, _STATIC, "edge-1") == f"goes via {_ELSEWHERE}, planned {_WAY} on eth1"


def test_a_route_of_others_is_left_alone(tmp_path: Path) -> None:
    assert observe(tmp_path, _WAY, _STATIC) is None, "it goes where ours would"
    with pytest.raises(NotOurs, match=f"a route to {_TIER} via {_ELSEWHERE} is in the way") as caught:
        observe(tmp_path, _ELSEWHERE, _STATIC)
    assert caught.value.remedy.endswith(f"./lab exec host1 -- ip route delete {_TIER}")
