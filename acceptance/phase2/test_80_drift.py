"""Drift: whatever is changed by hand, `check` names it, and `converge` mends it and starts nothing else again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest

from acceptance.phase2.moments import healthy
from acceptance.phase2.stage import SETTINGS, InContainers, emptied
from acceptance.provisioning import Report, provision
from acceptance.suite.stage import Seat, members
from underlay.hosts.base import Host
from underlay.topology import Program

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

_FILE = f"{SETTINGS}/compose.yaml"
_COPY = "/run/compose-of-the-test.yaml"
#: A network of nobody's plan (RFC 2544).
_SUBNET = "198.18.7.0/24"


@dataclass(frozen=True, slots=True)
class Drift:
    """A way to change something: commands on the host, given the name of a container and of its network.

    ``named`` is what `check` must name; ``restarts`` says which containers are then started again, by its name, besides
    whom the kernel itself took something from; ``follows`` are parts of the names of what may be named besides.
    """

    commands: Callable[[str, str], Sequence[str]]
    named: Callable[[str, str], str] = lambda name, _: f"container {name}"
    restarts: Callable[[str], frozenset[str]] = lambda name: frozenset({name})
    follows: tuple[str, ...] = ()


def _nobody(name: str) -> frozenset[str]:
    return frozenset()


def _changed(name: str, old: str, new: str) -> Sequence[str]:
    """Return what makes a container otherwise than its project says, as Compose does it."""
    return (
        f"sed 's|{old}|{new}|' {_FILE} >{_COPY}",
        f"docker compose --file {_COPY} up --detach --no-deps --pull never {name}",
        f"rm {_COPY}",
    )


def _hijacked(name: str, network: str) -> Sequence[str]:
    """Return what gives a cache the database's name as well, in their network."""
    place = f"{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}"
    aliases = " ".join(f"--alias {alias}" for alias in ("redis", "postgres"))
    return (
        f"address=$(docker inspect --format '{place}' {name})",
        f"docker network disconnect {network} {name}",
        f"docker network connect --ip $address {aliases} {network} {name}",
    )


def _elsewhere(name: str, network: str) -> Sequence[str]:
    """Return what gives a container another address in its network, with the same names."""
    place = f"{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}"
    return (
        f"address=$(docker inspect --format '{place}' {name})",
        f"docker network disconnect {network} {name}",
        f"docker network connect --ip ${{address%.*}}.99 --alias redis {network} {name}",
    )


def _leading_out(name: str, network: str) -> Sequence[str]:
    """Return what makes an internal network anew, as one that leads out and keeps nobody apart."""
    place = "{{(index .IPAM.Config 0).Subnet}}"
    bridge = f"--opt com.docker.network.bridge.name={_bridge(network)}"
    return (
        f"subnet=$(docker network inspect --format '{place}' {network})",
        emptied(network),
        f"docker network rm {network}",
        f"docker network create --label underlay.phase=phase2 --subnet $subnet {bridge} {network}",
    )


def _inside(name: str, command: str) -> str:
    return f"nsenter --net=/proc/$(docker inspect --format '{{{{.State.Pid}}}}' {name})/ns/net {command}"


def _unplugged(name: str, _: str) -> Sequence[str]:
    """Return what takes the host's end of a container's cable out of its bridge."""
    return (
        f"number=$({_inside(name, 'ip -o link show eth0')} | sed 's/.*@if\\([0-9]*\\):.*/\\1/')",
        'ip link set $(ip -o link | sed -n "s/^$number: \\([^@]*\\)@.*/\\1/p") nomaster',
    )


_NETWORK = (lambda _, network: f"Docker network {network}", lambda _: frozenset({"*"}), ("container ", "sysctl "))
_RULES = "Docker rules"


def _half_made(name: str, _: str) -> Sequence[str]:
    """Return what a Compose leaves that was killed before the new container had the old one's name."""
    labels = ("underlay.phase=phase2", "com.docker.compose.project=shop", f"com.docker.compose.service={name}")
    words = " ".join(f"--label {label}" for label in labels)
    return (
        f"image=$(docker inspect --format '{{{{.Config.Image}}}}' {name})",
        f"docker create --pull never --name 0123_{name} --network none {words} $image",
    )


def _bridge(network: str) -> str:
    return f"p2-{network.removeprefix('shop_')}"


DRIFTS: Mapping[str, Drift] = {
    "stopped": Drift(lambda name, _: [f"docker stop {name}"]),
    "removed": Drift(lambda name, _: [f"docker rm --force {name}"]),
    "renamed": Drift(lambda name, _: [f"docker rename {name} other"]),
    "paused": Drift(lambda name, _: [f"docker pause {name}"], restarts=_nobody),
    "frozen": Drift(
        lambda name, _: [f"kill -STOP $(docker inspect --format '{{{{.State.Pid}}}}' {name})"], restarts=_nobody
    ),
    "another limit": Drift(lambda name, _: [f"docker update --memory 100m --memory-swap 100m {name}"]),
    "another share": Drift(lambda name, _: [f"docker update --cpus 1 {name}"]),
    "another restart policy": Drift(lambda name, _: [f"docker update --restart no {name}"]),
    "out of its network": Drift(lambda name, network: [f"docker network disconnect {network} {name}"]),
    "another environment": Drift(lambda name, _: _changed(name, f'REPLICA: "{name}"', 'REPLICA: "other"')),
    "one variable more": Drift(
        lambda name, _: _changed(name, f'REPLICA: "{name}"', f'REPLICA: "{name}"\\n      MORE: "1"')
    ),
    "may write": Drift(lambda name, _: _changed(name, "read_only: true", "read_only: false")),
    "has capabilities": Drift(lambda name, _: _changed(name, "cap_drop: .*", "cap_drop: []")),
    "another name in its network": Drift(lambda name, _: _changed(name, "aliases: .redis,", "aliases: [")),
    "one name more in its network": Drift(_hijacked),
    "another address": Drift(_elsewhere),
    "a processor of its own": Drift(lambda name, _: [f"docker update --cpuset-cpus 0 {name}"]),
    "network that leads out": Drift(_leading_out, *_NETWORK),
    "bridge that is down": Drift(
        lambda _, network: [f"ip link set {_bridge(network)} down"],
        lambda _, network: f"Docker network {network}",
        _nobody,
    ),
    "bridge without its address": Drift(
        lambda _, network: [f"ip address flush dev {_bridge(network)}"],
        lambda _, network: f"Docker network {network}",
        _nobody,
    ),
    "bridge that is gone": Drift(lambda _, network: [f"ip link delete {_bridge(network)}"], *_NETWORK),
    "cable that is cut": Drift(lambda name, _: [_inside(name, "ip link delete eth0")]),
    "cable that is down": Drift(lambda name, _: [_inside(name, "ip link set eth0 down")]),
    "cable that is unplugged": Drift(_unplugged),
    "Docker's jump": Drift(
        lambda *_: ["iptables -w -D FORWARD -j DOCKER-USER"], lambda *_: _RULES, lambda _: frozenset({"*"})
    ),
    "Docker's translation": Drift(
        lambda *_: [
            "iptables-save -t nat | sed -n 's/^-A \\(POSTROUTING .* ! -o p2-.*\\)/iptables -w -t nat -D \\1/p' | sh"
        ],
        lambda *_: _RULES,
        lambda _: frozenset({"*"}),
    ),
    "another weight": Drift(lambda name, _: [f"docker update --cpu-shares 512 {name}"]),
    "half made anew": Drift(_half_made, lambda name, _: f"container 0123_{name}", _nobody),
    "frozen daemon": Drift(
        lambda *_: ["pkill --signal STOP --exact dockerd"],
        lambda *_: "program docker",
        _nobody,
        ("Docker ", "container "),
    ),
    "project's file": Drift(lambda *_: [f"echo '# more' >>{_FILE}"], lambda *_: f"file {_FILE}", _nobody),
    "rule of the guard": Drift(lambda *_: ["iptables -w -F PHASE2-FROM"], lambda *_: "iptables filter", _nobody),
    "jump to the guard": Drift(lambda *_: ["iptables -w -D DOCKER-USER 1"], lambda *_: "iptables filter", _nobody),
    "rule of the last guard": Drift(
        lambda *_: ["iptables -w -t security -F PHASE2-TO"], lambda *_: "iptables security", _nobody
    ),
    "registry": Drift(lambda *_: ["supervisorctl stop registry"], lambda *_: "program registry", _nobody),
    "resolver": Drift(lambda *_: ["supervisorctl stop resolver"], lambda *_: "program resolver", _nobody),
    "parameter of a bridge": Drift(
        lambda _, network: [f"sysctl -qw net.ipv6.conf.{_bridge(network)}.disable_ipv6=0"],
        lambda _, network: f"sysctl net.ipv6.conf.{_bridge(network)}.disable_ipv6",
        _nobody,
    ),
    "network on another subnet": Drift(
        lambda name, network: [
            f"docker rm --force {name}",
            emptied(network),
            f"docker network rm {network}",
            f"docker network create --label underlay.phase=phase2 --subnet {_SUBNET} {network}",
        ],
        lambda _, network: f"Docker network {network}",
        lambda _: frozenset({"*"}),
        ("container ", "sysctl "),
    ),
    "daemon": Drift(
        lambda *_: ["supervisorctl stop docker"],
        lambda *_: "program docker",
        lambda _: frozenset({"*"}),
        ("Docker ", "container ", "sysctl "),
    ),
}


@pytest.fixture(scope="module")
def victim(containers: InContainers) -> Seat:
    """Return the replica that things are done to: a cache, which nobody misses for long."""
    found = next((seat for seat in containers.seats() if seat.service.program is Program.REDIS), None)
    if found is None:
        pytest.skip("the plan has no cache")
    return found


def _started(stage: InContainers) -> dict[str, object]:
    said = stage.inspect([member.name for member in members(stage.plan)])
    states = {name: item.get("State") if item else None for name, item in said.items()}
    return {name: state.get("StartedAt") if isinstance(state, Mapping) else None for name, state in states.items()}


def _break(host: Host, commands: Sequence[str]) -> None:
    host.run(["sh", "-e", "-c", "\n".join(commands)])


@pytest.mark.parametrize("name", DRIFTS)
def test_drift_is_named_and_mended(containers: InContainers, victim: Seat, name: str) -> None:
    stage, drift = containers, DRIFTS[name]
    host, network = stage.machine(victim), f"shop_{victim.tier.name}"
    before = _started(stage)
    try:
        _break(host, drift.commands(victim.name, network))
        found = provision(host, "check", stage.phase)
    finally:
        mended = provision(host, "converge", stage.phase)
    wanted = drift.named(victim.name, network)
    _assert_named(host, found, wanted, drift)
    assert mended.exit_code == 0, f"{host.name}: expected: converge mends it; seen: {mended}"
    again = provision(host, "check", stage.phase)
    assert (again.exit_code, again.resources) == (0, ()), f"{host.name}: expected: 0 differences; seen: {again}"
    healthy(stage, stage.plan.timeouts.ready)
    allowed = drift.restarts(victim.name)
    after = _started(stage)
    touched = {item for item in before if before[item] != after[item]}
    assert "*" in allowed or touched <= allowed, (
        f"{host.name}: expected: started again: {sorted(allowed) or 'nobody'}; seen: {sorted(touched)}"
    )


def _assert_named(host: Host, found: Report, wanted: str, drift: Drift) -> None:
    assert found.exit_code == 1, f"{host.name}: expected: check fails; seen: {found}"
    assert wanted in found.resources, f"{host.name}: expected: {wanted} is named; seen: {found}"
    others = [item for item in found.resources if item != wanted and not item.startswith(drift.follows or ("!",))]
    assert not others, f"{host.name}: expected: {wanted} alone; seen besides: {others}"


def test_published_port_that_no_rule_leads_to_is_named_and_mended(containers: InContainers) -> None:
    stage = containers
    if not stage.plan.published or stage.containers.host is None:
        pytest.skip("the plan publishes nothing")
    host = stage.lab.hosts[stage.containers.host]
    try:
        _break(host, ["iptables -w -t nat -F DOCKER"])
        found = provision(host, "check", stage.phase)
    finally:
        mended = provision(host, "converge", stage.phase)
    assert found.resources == (_RULES,), f"{host.name}: expected: {_RULES} alone; seen: {found}"
    assert mended.exit_code == 0, f"{host.name}: expected: converge mends it; seen: {mended}"
    healthy(stage, stage.plan.timeouts.ready)


def test_settings_that_were_changed_are_put_back_and_read_again(containers: InContainers) -> None:
    """A container may have read them meanwhile."""
    stage = containers
    seat = next((item for item in stage.seats() if item.service.program is Program.NGINX), None)
    if seat is None:
        pytest.skip("the plan has no edge")
    host, before = stage.machine(seat), _started(stage)
    places = "{{range .Mounts}}{{println .Source}}{{end}}"
    (path,) = host.run(["docker", "inspect", "--format", places, seat.name]).stdout.split()
    try:
        host.run(["sh", "-c", f"echo '# more' >>{path}"])
        found = provision(host, "check", stage.phase)
    finally:
        mended = provision(host, "converge", stage.phase)
    wanted = {f"file {path}", f"container {seat.name}"}
    assert set(found.resources) == wanted, f"{host.name}: expected: {wanted}; seen: {found}"
    assert mended.exit_code == 0, f"{host.name}: expected: converge mends it; seen: {mended}"
    touched = {name for name, moment in _started(stage).items() if before[name] != moment}
    assert touched == {seat.name}, f"{host.name}: expected: started again: {seat.name}; seen: {sorted(touched)}"
    healthy(stage, stage.plan.timeouts.ready)


def test_secret_that_was_changed_is_put_back_and_read_again(containers: InContainers) -> None:
    """Nobody knows what a container has read whose secret is not as planned."""
    stage = containers
    seat = next((item for item in stage.seats() if item.service.program is Program.PRODUCT), None)
    if seat is None:
        pytest.skip("the plan has no product service")
    host, before = stage.machine(seat), _started(stage)
    path = stage.secret(seat)
    try:
        host.run(["sh", "-c", f"echo wrong >{path}"])
        found = provision(host, "check", stage.phase)
    finally:
        mended = provision(host, "converge", stage.phase)
    assert f"file {path}" in found.resources, f"{host.name}: expected: file {path} is named; seen: {found}"
    assert mended.exit_code == 0, f"{host.name}: expected: converge mends it; seen: {mended}"
    after = _started(stage)
    touched = {name for name in before if before[name] != after[name]}
    wanted = {item.name for item in stage.seats() if item.service == seat.service}
    assert touched == wanted, f"{host.name}: expected: started again: {sorted(wanted)}; seen: {sorted(touched)}"
