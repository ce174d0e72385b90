"""What the shop's programs are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.shop import Patience, Site, edge_config, environment
from services.common import database
from services.gateway.settings import Settings
from services.order.settings import Settings as OrderSettings
from tests.plans import shop
from underlay.topology import Plan

_OWN = ("gateway", "order")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return shop.plan()


@given(connect=st.floats(0.01, 86400))
def test_each_waits_longer_than_whom_it_asks_may_take(connect: float) -> None:
    wait = Patience(connect)
    database_gives_up = wait.database + wait.database * database.GRACE
    order = [wait.connect, database_gives_up, wait.service, wait.gateway, wait.edge, wait.customer]
    assert order == sorted(set(order)), order


def test_programs_are_told_how_long_to_wait(plan: Plan, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hidden\n")
    site, wait = Site("10.77.1.20", tmp_path, tmp_path, secret), Patience(plan.timeouts.connect)
    told = {name: environment(plan, plan.service(name), plan.service(name).replicas[0], site) for name in _OWN}
    gateway, order = Settings.read(told["gateway"]), OrderSettings.read(told["order"]).database
    assert (gateway.connect, gateway.read_answer, gateway.total) == (wait.connect, wait.service, wait.gateway)
    assert (order.connect, order.wait, order.statement) == (wait.connect, wait.database, wait.database)
    edge = plan.service("edge")
    text = edge_config(plan, edge, edge.replicas[0], site)
    assert f"proxy_read_timeout {wait.edge:g}s;" in text
    assert f"proxy_next_upstream_timeout {wait.customer:g}s;" in text
