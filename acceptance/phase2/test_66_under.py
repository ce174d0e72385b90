"""`explain phase2 --under`: run elsewhere, its commands make what Docker has made for a container."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from acceptance.phase2.stage import InContainers
from acceptance.provisioning import command
from acceptance.suite.stage import Seat
from underlay.repository import REPOSITORY
from underlay.topology import load_plan

#: Looks at a network, by the words that enter it: its rules, its links with addresses, its routes.
_LOOK = """
look() { for words in "iptables-save" "ip -j -d address" "ip -j route"; do "$@" $words; echo "--"; done; }
"""
#: Runs a script, its input, in a network namespace of its own where nobody has a name yet, and looks at both.
_ELSEWHERE = f"""{_LOOK}
mount -t tmpfs none /run/netns
mount -t tmpfs none /mnt
cat >/mnt/script
sh /mnt/script >&2
look env
look ip netns exec "$1"
"""
_HERE = f"""{_LOOK}
look env
look nsenter "--net=$1"
"""
_PEER = re.compile(r"@.*")


@dataclass(frozen=True, slots=True)
class Link:
    """What a link is, as far as Docker decides about it; ``port_of`` is the bridge of its other end."""

    kind: str
    mac: str
    mtu: int
    up: bool
    addresses: frozenset[str]
    port_of: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """What was made for a container: rules in order by host and container, its bridges, its links, its routes."""

    rules: tuple[str, ...]
    inner_rules: tuple[str, ...]
    bridges: Mapping[str, Link]
    links: Mapping[str, Link]
    routes: frozenset[str]


def _rules(text: str, without: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the rules and chains, without counters; without those of our phases, and those that name others."""
    table, found = "", []
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        words = set(re.split(r"[ :/]", line))
        ours = table == "security" or re.search(r"PHASE\d|underlay phase", line)
        if line[:1] in {":", "-"} and not ours and not words & set(without):
            found.append(f"{table} {re.sub(r' .[0-9]+:[0-9]+.$', '', line)}")
    return tuple(found)


def _links(said: str) -> dict[str, tuple[int, Mapping[str, object], Link]]:
    found = {}
    for item in json.loads(said):
        addresses = frozenset(
            f"{address['local']}/{address['prefixlen']} {address.get('broadcast')}"
            for address in item["addr_info"]
            if address["family"] == "inet"
        )
        kind = item.get("linkinfo", {}).get("info_kind", "")
        link = Link(kind, item["address"], item["mtu"], "UP" in item["flags"], addresses)
        found[_PEER.sub("", item["ifname"])] = (item["ifindex"], item, link)
    return found


def _made(said: str, wanted: Sequence[str], without: Sequence[str]) -> Made:
    rules, outer, _, inner_rules, inner, routes, _ = said.split("--\n")
    root = _links(outer)
    masters = {index: str(item.get("master", "")) for index, item, _ in root.values()}
    inside = {
        name: replace(link, port_of=masters.get(int(str(item.get("link_index", 0))), ""))
        for name, (_, item, link) in _links(inner).items()
    }
    ways = (tuple(item.get(key) for key in ("dst", "gateway", "dev", "protocol")) for item in json.loads(routes))
    return Made(
        _rules(rules, without),
        _rules(inner_rules),
        {name: root[name][2] for name in wanted if name in root},
        inside,
        frozenset(" ".join(map(str, way)) for way in ways),
    )


def test_the_commands_make_what_docker_has_made(containers: InContainers, seat: Seat) -> None:
    """In a network namespace of its own, the host's part and the container's."""
    plan, host = containers.plan, containers.machine(seat)
    networks = {item.tier for item in containers.containers.attachments[seat.name]}
    wanted = ["docker0", *(plan.tier(name).bridge for name in networks)]
    without = [tier.bridge for tier in plan.tiers if tier.host and tier.name not in networks] + [
        str(item.address.ip)
        for name, every in containers.containers.attachments.items()
        for item in every
        if name != seat.name
    ]
    script = host.run([*command("explain", containers.phase), "--under", seat.name]).stdout
    elsewhere = host.run(["unshare", "--net", "--mount", "sh", "-ec", _ELSEWHERE, "sh", seat.name], stdin=script).stdout
    here = host.run(["sh", "-ec", _HERE, "sh", seat.space]).stdout
    made, seen = _made(here, wanted, without), _made(elsewhere, wanted, without)
    for what in ("rules", "inner_rules", "bridges", "links", "routes"):
        expected, got = getattr(made, what), getattr(seen, what)
        assert got == expected, f"{seat.host}/{seat.name}: {what}: expected: {expected}; seen: {got}"
    assert made.bridges.keys() == set(wanted), f"expected: {wanted}; seen: {made.bridges}"
    assert any("DOCKER" in rule for rule in made.rules), f"expected: rules of Docker's; seen: {made.rules}"


_GOLDEN = Path(__file__).parent / "golden"
#: What is another one each time: addresses of bridges, names of cables, where the daemon listens for questions, and the
#: order of networks, in which Docker makes its rules when it starts.
_CHANGES = (
    (re.compile(r"(?<=address )02:42:[0-9a-f:]+(?= mtu \d+ type bridge)"), "MAC"),
    (re.compile(r"veth[0-9a-f]{7}"), "veth*"),
    (re.compile(r"(?<=127\.0\.0\.11:)\d+|(?<=--sport )\d+"), "PORT"),
    (re.compile(r"-I (\S+)( \d+)?"), r"-A \1"),
)


def _normal(script: str) -> str:
    """Return the commands of a script, by step, sorted, without what is another one each time."""
    for pattern, word in _CHANGES:
        script = pattern.sub(word, script)
    found: list[str] = []
    for step in re.split(r"^# (?=\d+\. )", script, flags=re.MULTILINE)[1:]:
        title, *lines = step.splitlines()
        found += [title, *sorted(f"  {line}" for line in lines if line and not line.startswith(("# ", "#\n", "#")))]
        found += sorted(f"  {line[2:]}" for line in lines if "docker-proxy" in line)
    return "\n".join([*found, ""])


def test_this_engine_makes_what_it_made_before(containers: InContainers) -> None:
    """For the shipped plan, as the document of its version has it: what an upgrade changes is seen here."""
    if containers.lab.plan != load_plan(REPOSITORY / "topology.yaml"):
        pytest.skip("the lab is up with another plan than the shipped one, or with the patience of emulated machines")
    host = containers.lab.hosts[str(containers.containers.host)]
    version = host.run(["docker", "version", "--format", "{{.Server.Version}}"]).stdout
    short = ".".join(version.split(".")[:2])
    document = _GOLDEN / f"docker-{short}.txt"
    scripts = (
        host.run([*command("explain", containers.phase), "--under", name]).stdout for name in ("edge-1", "gateway-1")
    )
    seen = "\n".join(map(_normal, scripts))
    if os.environ.get("UNDERLAY_GOLDEN") == "write":
        document.parent.mkdir(exist_ok=True)
        document.write_text(seen)
    if not document.exists():
        pytest.skip(f"no document for Docker {short}: write it with UNDERLAY_GOLDEN=write, and compare it with others")
    assert seen == document.read_text(), f"{host.name}: Docker {version.strip()}: {document.name} says otherwise"
