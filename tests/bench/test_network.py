"""The network that is measured: every contender is told to make the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import network
from provision.resources.ip import Address, Route
from provision.resources.link import Bridge, Veth
from provision.resources.namespace import Namespace

SIZES = (1, 2, 255, 256, 257, network.LARGEST)


@pytest.mark.parametrize("size", SIZES)
def test_every_node_has_names_and_an_address_of_its_own(size: int) -> None:
    nodes = network.nodes(size)
    assert len({node.namespace for node in nodes}) == size
    assert len({node.link for node in nodes}) == size
    addresses = {node.address.ip for node in nodes}
    assert len(addresses) == size
    assert network.GATEWAY.ip not in addresses
    assert all(node.address.network == network.GATEWAY.network for node in nodes)
    assert all(len(node.link) <= 15 for node in nodes)


def test_no_address_is_the_networks_own() -> None:
    subnet = network.GATEWAY.network
    assert not {subnet.network_address, subnet.broadcast_address} & {
        node.address.ip for node in network.nodes(network.LARGEST)
    }


def test_the_list_has_one_bridge_and_four_resources_a_node() -> None:
    resources = network.phase(3).resources
    assert [type(item) for item in resources[:2]] == [Bridge, Address]
    assert [type(item) for item in resources[2:]] == [Namespace, Veth, Address, Route] * 3


def test_the_script_takes_one_process_a_step() -> None:
    commands = [line for line in network.script_up(2).splitlines() if line and line[0] != "#" and line != "set -eu"]
    assert all(line.startswith("ip ") for line in commands)
    assert len(commands) == 3 + 2 * 7


def test_the_batches_say_what_the_script_says() -> None:
    """Same names, addresses, groups and protocol numbers, in fewer steps."""
    script, made = network.script_up(3), network.batches(3)
    batches = "\n".join([made.outside, *made.inside.values()])
    for pattern in (
        r"\b[nv]\d\b",
        r"\d+\.\d+\.\d+\.\d+(?:/\d+)?",
        r"02:4c:\S+",
        r"group \d+",
        r"proto \d+",
        r"mtu \d+",
    ):
        commands = "\n".join(line for line in script.splitlines() if line.startswith("ip "))
        assert set(re.findall(pattern, batches)) == set(re.findall(pattern, commands)), pattern


def test_batches_need_one_process_and_one_for_each_namespace(tmp_path: Path) -> None:
    network.write_batches(3, tmp_path)
    up = (tmp_path / "up").read_text().splitlines()
    assert up[0] == "set -eu"
    assert [line.split()[:3] for line in up[2:]] == [["ip", "-n", f"n{number}"] for number in range(3)]
    for line in (
        *up[1:],
        (tmp_path / "floor").read_text().splitlines()[-1],
        (tmp_path / "down").read_text().split()[-1],
    ):
        assert Path(line.split()[-1]).read_text().endswith("\n")


def test_removal_names_everything() -> None:
    assert network.script_down(2).splitlines()[1:] == ["ip netns del n0", "ip netns del n1", "ip link del br0"]
    assert network.batches(2).down.splitlines() == [
        f"link del group {network.MARK.group}",
        "netns del n0",
        "netns del n1",
    ]
