"""Ways to change by hand what phase 2 has made, and which of them may be done together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from acceptance.phase2.stage import SETTINGS, emptied

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
#: What Docker has in the kernel and does not look at again, as `check` names it.
DOCKERS_RULES = "Docker rules"


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
        lambda *_: ["iptables -w -D FORWARD -j DOCKER-USER"], lambda *_: DOCKERS_RULES, lambda _: frozenset({"*"})
    ),
    "Docker's translation": Drift(
        lambda *_: [
            "iptables-save -t nat | sed -n 's/^-A \\(POSTROUTING .* ! -o p2-.*\\)/iptables -w -t nat -D \\1/p' | sh"
        ],
        lambda *_: DOCKERS_RULES,
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


#: Kinds that do not touch each other are done together, each to a container of its own, so that a whole round costs one
#: check and one converge. The first of a round is for a cache, of whose names it may be; those of an environment come
#: third or later, which is a service's. What is done to a network, the daemon or rules of Docker's own is done alone.
ROUNDS = (
    ("another name in its network", "stopped", "removed", "renamed", "paused", "another limit"),
    (
        "one name more in its network",
        "frozen",
        "another share",
        "another restart policy",
        "out of its network",
        "another environment",
    ),
    (
        "another address",
        "may write",
        "one variable more",
        "has capabilities",
        "a processor of its own",
        "cable that is cut",
    ),
    ("cable that is down", "cable that is unplugged", "another weight", "half made anew"),
    ("parameter of a bridge", "project's file", "rule of the guard", "rule of the last guard", "registry", "resolver"),
    ("bridge that is down", "jump to the guard"),
    *(
        (kind,)
        for kind in (
            "network that leads out",
            "bridge without its address",
            "bridge that is gone",
            "Docker's jump",
            "Docker's translation",
            "frozen daemon",
            "network on another subnet",
            "daemon",
        )
    ),
)
