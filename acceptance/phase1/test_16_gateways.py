"""What is at the hosts' addresses in the tiers: DNS alone; as whom it runs, and what it is when it does not answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from acceptance.modules import LabHost
from acceptance.suite.shop import Shop
from acceptance.suite.stage import Stage
from acceptance.traffic import DNS_PORT
from underlay.topology import Plan


def test_nothing_but_dns_listens_on_the_gateways_of_tiers(host: LabHost, plan: Plan, host_name: str) -> None:
    gateways = [tier.gateway.ip for tier in plan.tiers_on(host_name)]
    wanted = sorted(f"{protocol}://{address}:{DNS_PORT}" for protocol in ("tcp", "udp") for address in gateways)
    every = (item for item in host.socket.get_listening_sockets() if not item.startswith("unix:"))
    seen = sorted({item for item in every if any(_address(item) in tier.subnet for tier in plan.tiers)})
    assert seen == wanted, f"{host_name}: expected: {wanted}; seen: {seen}"


def _dns(host: LabHost) -> str:
    return host.machine.run(["supervisorctl", "pid", "dns"]).stdout.strip()


def test_dns_does_not_run_as_root(stage: Stage, busy_host: str) -> None:
    host = LabHost(stage.lab.hosts[busy_host], stage.plan)
    pid = _dns(host)
    owner = host.file(f"/proc/{pid}/status").content_string
    user = next(line.split()[1] for line in owner.splitlines() if line.startswith("Uid:"))
    assert user != "0", f"{host.name}: process {pid} of dns: expected: not root; seen: user {user}"


def test_frozen_dns_costs_little_and_the_shop_nothing(stage: Stage, shop: Shop, busy_host: str) -> None:
    host = LabHost(stage.lab.hosts[busy_host], stage.plan)
    seat = stage.seats(busy_host)[0]
    name = f"{stage.plan.services[0].name}.{stage.plan.domain}."
    assert not stage.resolve(seat, [name])[name].error
    pid = _dns(host)
    host.machine.run(["kill", "-STOP", pid])
    try:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(shop.one, shop.get("/api/products"))
            lost = stage.resolve(seat, [name])[name]
            answer = asked.result()
    finally:
        host.machine.run(["kill", "-CONT", pid])
    assert lost.error, f"{seat.name}: expected: no answer from a frozen server; seen: {lost}"
    most = 2 + stage.plan.timeouts.connect  # a second an attempt, and two attempts (resolv.conf(5))
    assert lost.seconds < most, f"{seat.name}: expected: told so within {most:g} s; seen: {lost}"
    assert answer.status == 200, f"expected: names known before serve on; seen: {answer} {answer.body}"


def _address(shown: str) -> object:
    """Return the address of what testinfra shows: ``tcp://127.0.0.1%lo:53``, ``udp://:::22``."""
    return ip_address(shown.partition("://")[2].rpartition(":")[0].partition("%")[0])
