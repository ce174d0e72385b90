"""Each of Docker's network drivers, tried with containers of its own: what it makes, and who reaches whom."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address

from acceptance.phase2.stage import InContainers
from acceptance.suite.stage import members
from acceptance.traffic import Attempt, Listener, Outcome, Prober, outside_prober
from underlay.hosts.base import Host
from underlay.process import Completed

#: The port inside that is published.
_PORT = 80
_NETWORK = "driver-test"
_ONE, _OTHER = "driver-one", "driver-other"
_LOOPBACK = "lo"


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver, and what is expected of it.

    ``network`` is the one that is always there, else one is made with ``words``; on the link of the underlay if it is
    ``on_link``, with addresses of the underlay if it is a part of its ``lan``. ``kind`` is that of the link inside (""
    without any), ``port`` whether its other end is a port of a bridge on the host. The others are whether a connection
    succeeds: from inside to the other host, from the host to the inside, from one container to another one; whether
    that one is known by its name; and whether a published port is served to the outside.
    """

    name: str
    kind: str
    port: bool
    gets_out: bool
    host_gets_in: bool
    neighbours: bool
    names: bool
    published: bool
    network: str = ""
    words: tuple[str, ...] = ()
    on_link: bool = False
    lan: bool = False


DRIVERS = (
    Driver("none", "", False, False, False, False, False, False, network="none"),
    Driver("default bridge", "veth", True, True, True, True, False, True, network="bridge"),
    Driver("user-defined bridge", "veth", True, True, True, True, True, True, words=("--driver", "bridge")),
    Driver("internal bridge", "veth", True, False, True, True, True, False, words=("--driver", "bridge", "--internal")),
    Driver("macvlan", "macvlan", False, True, False, True, True, False,
           words=("--driver", "macvlan"), on_link=True, lan=True),
    Driver("ipvlan l2", "ipvlan", False, True, False, True, True, False,
           words=("--driver", "ipvlan", "--opt", "ipvlan_mode=l2"), on_link=True, lan=True),
    # Nobody knows the way back: it has a network of its own, and answers no question for addresses (ARP).
    Driver("ipvlan l3", "ipvlan", False, False, False, True, True, False,
           words=("--driver", "ipvlan", "--opt", "ipvlan_mode=l3"), on_link=True),
)  # fmt: skip


_HOST = Driver("host", "", False, True, True, True, False, False, network="host")


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of it: links inside with their kinds, whether each is a port of a bridge of the host; and outcomes."""

    driver: Driver
    kinds: dict[str, str]
    ports: frozenset[str]
    out: Outcome
    from_host: Outcome | None
    neighbour: Outcome | None
    known: frozenset[IPv4Address]
    address: IPv4Address | None
    outside: Outcome | None


class NoDriver(Exception):
    """The kernel has no such links, as Docker says."""


@dataclass(frozen=True, slots=True)
class _Container:
    name: str
    pid: int
    address: IPv4Address | None
    port: int

    @property
    def space(self) -> str:
        return f"/proc/{self.pid}/ns/net"


def attempt(stage: InContainers, driver: Driver, away: Host) -> Tried:
    """Try one driver on the host of the containers; nothing of it is left. Raises NoDriver."""
    name = str(stage.containers.host)
    host, prober = stage.lab.hosts[name], Prober(stage.lab.hosts[name], stage.plan)
    with _containers(stage, host, driver) as (one, other):
        kinds, ports = _links(host, one)
        listeners = [Listener("tcp", one.space), Listener("tcp", other.space), Listener("tcp", one.space, port=_PORT)]
        with prober.listening(listeners) as here, Prober(away, stage.plan).listening([Listener("tcp")]) as there:
            out = prober.one(Attempt("tcp", str(away.address), there.ports[0], one.space, who=one.name))
            from_host = one.address and prober.one(Attempt("tcp", str(one.address), here.ports[0]))
            neighbour = other.address and prober.one(
                Attempt("tcp", str(other.address), here.ports[1], one.space, who=one.name)
            )
            outside = None
            if one.port:
                outside = outside_prober(stage.lab).one(Attempt("tcp", str(host.address), one.port))
        known = prober.resolve([_OTHER], stage.enter_process(one.pid))[_OTHER].addresses
    return Tried(driver, kinds, ports, out, from_host or None, neighbour or None, known, other.address, outside)


@contextmanager
def _containers(stage: InContainers, host: Host, driver: Driver) -> Iterator[tuple[_Container, _Container]]:
    member = next(members(stage.plan))
    image = host.run(["docker", "inspect", "--format", "{{.Config.Image}}", member.name]).stdout.strip()
    with ExitStack() as stack:
        network = driver.network
        if not network:
            network = _NETWORK
            words = [*driver.words, *(_on_link(stage, host, lan=driver.lan) if driver.on_link else ())]
            _made(host.run(["docker", "network", "create", *words, network], check=False), driver)
            stack.callback(host.run, ["docker", "network", "rm", network])
        for name, address in zip((_ONE, _OTHER), _free(stage), strict=False):
            stack.callback(host.run, ["docker", "rm", "--force", name], check=False)
            words = ["--network", network, *(("--ip", str(address)) if driver.lan else ())]
            words += ["--publish", str(_PORT)] if name == _ONE else []
            done = host.run(
                ["docker", "run", "--detach", "--pull", "never", "--name", name, "--no-healthcheck", "--entrypoint",
                 "sleep", *words, image, "infinity"], check=False,
            )  # fmt: skip
            _made(done, driver)
        said = stage.inspect([_ONE, _OTHER])
        yield _container(_ONE, said[_ONE]), _container(_OTHER, said[_OTHER])


def _made(done: Completed, driver: Driver) -> None:
    """Raise NoDriver if the kernel has no links of that kind, as it says itself; AssertionError if it went wrong."""
    if not done.ok and "operation not supported" in done.stderr:
        raise NoDriver(f"{driver.name}: the kernel has no module {driver.kind}: {done.stderr.strip().splitlines()[-1]}")
    assert done.ok, f"{driver.name}: expected: it is made; seen: {done.stderr.strip()}"


def _on_link(stage: InContainers, host: Host, *, lan: bool) -> Sequence[str]:
    """Return the words for a network on the link of the underlay, with its addresses if it is a part of the LAN."""
    underlay = stage.plan.underlay
    words = ("--subnet", str(underlay.subnet), "--gateway", str(underlay.gateway.ip)) if lan else ()
    for item in json.loads(host.run(["ip", "-json", "address"]).stdout):
        if any(address.get("local") == str(host.address) for address in item["addr_info"]):
            return (*words, "--opt", f"parent={item['ifname']}")
    raise AssertionError(f"{host.name}: expected: a link with {host.address}; seen: none")


def _free(stage: InContainers) -> Sequence[IPv4Address]:
    """Return two addresses of the underlay that are nobody's, by the plan."""
    underlay = stage.plan.underlay
    taken = {underlay.gateway.ip, *(host.address.ip for host in stage.plan.hosts)}
    return [item for item in reversed(list(underlay.subnet.hosts())) if item not in taken][:2]


def _container(name: str, said: object) -> _Container:
    assert isinstance(said, dict), f"expected: a container {name}; seen: none"
    settings = said["NetworkSettings"]
    addresses = [item["IPAddress"] for item in settings["Networks"].values() if item.get("IPAddress")]
    published = settings["Ports"].get(f"{_PORT}/tcp") or []
    return _Container(
        name,
        said["State"]["Pid"],
        IPv4Address(addresses[0]) if addresses else None,
        int(published[0]["HostPort"]) if published else 0,
    )


def shared(stage: InContainers) -> tuple[str, str, int]:
    """Return the network namespaces of the host, and of a container that shares it; and the ports it has published."""
    host = stage.lab.hosts[str(stage.containers.host)]
    with _containers(stage, host, Driver("host", "", False, True, True, True, False, False, network="host")) as (
        one,
        _,
    ):
        own, of_container = host.run(["readlink", "/proc/self/ns/net", one.space]).stdout.split()
    return own, of_container, one.port


def _links(host: Host, container: _Container) -> tuple[dict[str, str], frozenset[str]]:
    """Return the links inside, but for loopback, with their kinds; and those that are cables to a bridge here."""
    inside = json.loads(host.run(["nsenter", f"--net={container.space}", "ip", "-json", "-details", "link"]).stdout)
    here = {item["ifindex"]: item for item in json.loads(host.run(["ip", "-json", "link"]).stdout)}
    links = [item for item in inside if item["ifname"] != _LOOPBACK]
    kinds = {item["ifname"]: str(item.get("linkinfo", {}).get("info_kind", "")) for item in links}
    cables = (item for item in links if kinds[item["ifname"]] == "veth")
    return kinds, frozenset(item["ifname"] for item in cables if here.get(item.get("link_index"), {}).get("master"))
