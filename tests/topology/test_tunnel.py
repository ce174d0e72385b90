"""What the plan comes to in the tunnel: who is in it, where, at which address."""

from __future__ import annotations

import pytest

from tests.plans import shop
from underlay.topology import across


def test_products_stand_where_no_gateway_is() -> None:
    stretched = across(shop.plan())
    homes = {item.name: (service.host, str(item.address)) for service, item in stretched.plan.replicas()}
    assert homes == {
        "p3-gateway-1": ("host1", "10.78.0.10/24"),
        "p3-gateway-2": ("host1", "10.78.0.11/24"),
        "p3-product-1": ("host2", "10.78.0.12/24"),
        "p3-product-2": ("host2", "10.78.0.13/24"),
    }
    assert {name: str(address) for name, address in stretched.bridges.items()} == {
        "host1": "10.78.0.1/24",
        "host2": "10.78.0.2/24",
    }


def test_only_flows_through_the_tunnel_are_left() -> None:
    plan = across(shop.plan()).plan
    assert [(flow.source, flow.target) for flow in plan.flows] == [("gateway", "product")]
    assert plan.published == ()
    assert not any(service.egress for service in plan.services)


@pytest.mark.parametrize(("underlay", "tunnel"), [(1500, 1450), (1330, 1280), (9000, 8950)])
def test_tunnel_is_smaller_by_what_it_adds(underlay: int, tunnel: int) -> None:
    """RFC 7348, section 4.3: no fragments. 20 bytes of IPv4, 8 of UDP, 8 of VXLAN, 14 of Ethernet."""
    assert across(shop.plan(("mtu: 1500", f"mtu: {underlay}"))).mtu == tunnel


def test_each_end_has_the_others_for_peers() -> None:
    stretched = across(shop.plan())
    assert stretched.peers("host1") == ("host2",)
    assert str(stretched.endpoint("host2")) == "192.168.56.12"
