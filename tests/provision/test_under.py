"""What Docker has made, said as commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Interface

from hypothesis import given
from hypothesis import strategies as st

from provision.phase2.under import Beside, Bridge, Cable, InPlace, Seen, script
from provision.resources.rules import Saved

#: Rules of one chain, each with the step at which it is said.
_RULES = st.lists(st.integers(0, 3), max_size=12)


def _replay(commands: list[str]) -> list[str]:
    """Return the chain that commands make, as iptables(8) does."""
    chain: list[str] = []
    for command in commands:
        match shlex.split(command):
            case ["iptables", "-t", "filter", "-A", "FORWARD", *rule]:
                chain.append(" ".join(rule))
            case ["iptables", "-t", "filter", "-I", "FORWARD", place, *rule] if place.isdecimal():
                assert 1 <= int(place) <= len(chain) + 1, "iptables: Index of insertion too big"
                chain.insert(int(place) - 1, " ".join(rule))
            case ["iptables", "-t", "filter", "-I", "FORWARD", *rule]:
                chain.insert(0, " ".join(rule))
            case other:
                raise AssertionError(other)
    return chain


def _at(when: Mapping[str, int], step: int) -> Callable[[str, str], bool]:
    return lambda _, rule: when[rule] == step


@given(_RULES)
def test_rules_come_out_in_their_order_whatever_step_says_them(steps: list[int]) -> None:
    rules = tuple(f"-j R{number}" for number in range(len(steps)))
    when = dict(zip(rules, steps, strict=True))
    saying = InPlace({"filter": Saved({"FORWARD": rules}, {"FORWARD": "DROP"})})
    commands: list[str] = []
    for step in range(4):
        commands += saying.say(_at(when, step))
    assert _replay(commands) == list(rules)


def _seen() -> Seen:
    """Return a container in one network, with a published port, beside another network with another container."""
    filters = {
        "FORWARD": (
            '-o p2-a -m comment --comment "underlay phase2" -j PHASE2-TO',
            "-j DOCKER-USER",
            "-o p2-b -j DOCKER",
            "-o p2-a -j DOCKER",
            "-s 192.0.2.1/32 -j ACCEPT",
            "-i eth9 -j LOG",
        ),
        "DOCKER": ("-d 10.0.1.2/32 ! -i p2-a -o p2-a -p tcp --dport 80 -j ACCEPT", "-d 10.0.1.3/32 -o p2-a -j ACCEPT"),
        "DOCKER-USER": ("-s 10.0.1.2/32 -j ACCEPT", "-j RETURN"),
        "PHASE2-TO": ("-d 10.0.1.2/32 -j ACCEPT",),
    }
    nat = {
        "DOCKER": ("! -i p2-a -p tcp --dport 9080 -j DNAT --to-destination 10.0.1.2:80",),
        "POSTROUTING": ("-s 10.0.1.0/24 ! -o p2-a -j MASQUERADE", "-s 10.0.2.0/24 ! -o p2-b -j MASQUERADE"),
    }
    address = IPv4Interface("10.0.1.2/24")
    return Seen(
        engine="1.2.3",
        name="one",
        forwarding={"net.ipv4.ip_forward": "1"},
        default=None,
        bridges=(Bridge("a", "p2-a", "02:42:00:00:00:01", 1500, IPv4Interface("10.0.1.1/24"), {}),),
        others=frozenset({"p2-a", "p2-b"}),
        cables=(Cable("veth1", "p2-a", "eth0", "02:42:0a:00:01:02", 1500, address),),
        inner_sysctls={},
        routes=(("default", "via", "10.0.1.1", "dev", "eth0"),),
        host={"filter": Saved(filters, {"FORWARD": "DROP"}), "nat": Saved(nat, {"POSTROUTING": "ACCEPT"})},
        inside={"nat": Saved({"DOCKER_OUTPUT": ("-j X",)}, {})},
        proxies=(("docker-proxy", "-host-port", "9080"),),
        resolvers=("udp 127.0.0.11:1",),
    )


def test_only_what_is_dockers_and_of_this_container_is_said() -> None:
    said = script(_seen(), Beside(names=("echo by hand",)), "host1").splitlines()
    rules = [line.split(" -t ")[1] for line in said if line.startswith("iptables") and " -N " not in line]
    assert rules == [
        "filter -P FORWARD DROP",
        "filter -A FORWARD -j DOCKER-USER",
        "filter -A DOCKER-USER -j RETURN",
        "nat -A POSTROUTING -s 10.0.1.0/24 ! -o p2-a -j MASQUERADE",
        "filter -A FORWARD -o p2-a -j DOCKER",
        "nat -A DOCKER ! -i p2-a -p tcp --dport 9080 -j DNAT --to-destination 10.0.1.2:80",
        "filter -A DOCKER -d 10.0.1.2/32 ! -i p2-a -o p2-a -p tcp --dport 80 -j ACCEPT",
    ]


def test_phase_1_stands_below_as_a_comment() -> None:
    said = script(_seen(), Beside(names=("echo by hand",)), "host1")
    assert said.endswith("# Phase 1:\n#   echo by hand\n")
    assert "# docker-proxy -host-port 9080 &" in said


def test_a_container_without_a_published_port_has_one_step_less() -> None:
    seen = _seen()
    alone = {name: Saved({}, saved.policies) for name, saved in seen.host.items()}
    said = script(replace(seen, host=alone, proxies=()), Beside(), "host1")
    assert "published" not in said
    assert "# 4. Names" in said
