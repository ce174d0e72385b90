"""What keeps virtual machines from starting, and what they leave: the parts that ask nobody."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from tests.plans import shop
from underlay.hosts.vagrant import check as vmcheck
from underlay.hosts.vagrant import kvm
from underlay.hosts.vagrant.check import Found
from underlay.hosts.vagrant.hypervisors import domain_name
from underlay.topology import Plan

NOTHING = Found(frozenset(), frozenset(), frozenset())
NETWORK = """<network><name>{name}</name><bridge name='virbr1'/>
<ip address='{address}' netmask='255.255.255.0'/><ip family='ipv6' address='fd00::1' prefix='64'/></network>"""


@pytest.fixture(scope="module")
def plan() -> Plan:
    return shop.plan()


def on(plan: Plan, subnet: str) -> Plan:
    network = IPv4Network(subnet)
    gateway = IPv4Interface(f"{network[1]}/{network.prefixlen}")
    return replace(plan, underlay=replace(plan.underlay, subnet=network, gateway=gateway))


def meminfo(mib: int) -> str:
    return f"MemTotal:       99999999 kB\nMemAvailable:   {mib * 1024} kB\n"


def test_memory(plan: Plan) -> None:
    needed = sum(host.memory for host in plan.hosts)
    assert not list(vmcheck.memory_problems(plan, (), meminfo(needed * 2)))
    (problem,) = vmcheck.memory_problems(plan, (), meminfo(needed - 1))
    assert f"{needed - 1} MiB are free" in problem.what
    assert problem.hint


def test_hosts_that_run_already_need_no_more_memory(plan: Plan) -> None:
    assert not list(vmcheck.memory_problems(plan, [host.name for host in plan.hosts], meminfo(0)))


def test_a_kernel_that_does_not_tell_its_free_memory_is_believed(plan: Plan) -> None:
    assert not list(vmcheck.memory_problems(plan, (), ""))


@pytest.mark.parametrize(
    ("subnet", "allowed", "good"),
    [
        ("192.168.56.0/24", None, True),
        ("192.168.63.0/24", None, True),
        ("192.168.64.0/24", None, False),
        ("10.9.0.0/24", None, False),
        ("10.9.0.0/24", "* 10.0.0.0/8 192.168.0.0/16\n* 2001::/64\n", True),
        ("192.168.56.0/24", "# none of it\n* 10.0.0.0/8\n", False),
        ("192.168.56.0/24", "", False),
    ],
)
def test_virtualbox_ranges(plan: Plan, subnet: str, allowed: str | None, good: bool) -> None:
    problems = list(vmcheck.range_problems(on(plan, subnet), allowed))
    assert not problems if good else f"* {subnet}" in problems[0].hint


def test_leftovers_of_an_earlier_run(plan: Plan) -> None:
    first = plan.hosts[0].name
    name = f"{plan.lab}_{first}"
    found = Found(frozenset({name}), frozenset(), frozenset({f"{name}.img", "another.img", f"{name}2.img"}))
    problems = list(vmcheck.leftover_problems(plan, (), found))
    assert [problem.what.split()[:2] for problem in problems] == [["a", "domain"], ["a", "disk"]]
    assert all(name in problem.hint for problem in problems)
    assert not list(vmcheck.leftover_problems(plan, [first], found))
    assert not list(vmcheck.leftover_problems(plan, (), NOTHING))


def test_networks(plan: Plan) -> None:
    own = {plan.lab: NETWORK.format(name=plan.lab, address=plan.underlay.gateway.ip)}
    assert not list(vmcheck.network_problems(plan, own))
    (other,) = vmcheck.network_problems(plan, {plan.lab: NETWORK.format(name=plan.lab, address="10.1.2.1")})
    assert "10.1.2.0/24" in other.what
    (taken,) = vmcheck.network_problems(plan, {"x": NETWORK.format(name="x", address=plan.underlay.gateway.ip)})
    assert "network x" in taken.what


def test_kvm_is_believed_when_a_kernel_came_to_its_end() -> None:
    said = "[    0.9] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
    assert kvm.judge(said).driver == kvm.KVM


@pytest.mark.parametrize("said", ["", "KVM internal error. Suberror: 1\nEAX=0", "Could not access KVM kernel module"])
def test_kvm_is_not_believed_otherwise(said: str) -> None:
    found = kvm.judge(said)
    assert found.driver == kvm.EMULATION
    assert (said.splitlines() or ["nothing"])[0] in found.why


def test_an_answer_of_another_boot_does_not_count(tmp_path: Path) -> None:
    memory = tmp_path / "kvm.json"
    assert kvm.recall(memory) is None
    memory.write_text('{"boot": "another", "answer": {"driver": "kvm", "why": "", "sure": true}}')
    assert kvm.recall(memory) is None
    memory.write_text("{")
    assert kvm.recall(memory) is None


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(kvm.VARIABLE, "qemu")
    assert kvm.answer([], tmp_path / "none") == kvm.Answer("qemu", f"${kvm.VARIABLE} says so")


def test_post_mortem_tells_who_cannot_be_reached_and_why(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = plan.hosts[:2]
    silent, telling = tmp_path / "silent", tmp_path / "telling"
    telling.write_text("booting\nALERT! no root\n")
    running = domain_name(plan.lab, first.name), domain_name(plan.lab, second.name)

    def virsh(verb: str, name: str) -> str:
        if verb == "domstate":
            return "running\n" if name in running else "shut off\n"
        return " vnet0  52:54:00:00:00:01  ipv4  127.0.0.1/24\n" if name == running[1] else "\n"

    monkeypatch.setattr(vmcheck, "_virsh", virsh)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, and nobody listens
        monkeypatch.setattr(vmcheck, "_SSH_PORT", unused.getsockname()[1])
        found = vmcheck.post_mortem(plan, {host.name: silent for host in plan.hosts} | {second.name: telling})
    assert [problem.where for problem in found] == [first.name, second.name]
    assert "has not asked for an address" in found[0].what
    assert "which is not there" in str(found[0].hint)
    assert "nothing answers at 127.0.0.1" in found[1].what
    assert str(found[1].hint).endswith("ALERT! no root")
