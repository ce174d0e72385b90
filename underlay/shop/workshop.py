"""The workshop: a namespace host that is thrown away, with BuildKit and a registry in it.

It is a lab of one host, booted from the hosts' image, so that it has namespaces, control groups and a disk of its own,
and whatever a killed build left is found by its name alone. It sees the materials of a build read-only where other
hosts see the repository; its wire leads nowhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from underlay.artifacts import cache_directory
from underlay.hosts import layout
from underlay.hosts.namespace import labs
from underlay.hosts.namespace.machines import NamespaceHost, NamespaceLab
from underlay.process import Completed
from underlay.progress import Progress, Quiet
from underlay.shop.recipe import REGISTRY
from underlay.topology.model import Host, Plan, Pools, Timeouts, Tunnel, Underlay
from underlay.wait import NotYet, until

#: Where the workshop sees the materials.
MATERIALS = layout.REPOSITORY
_HOST = "workshop"
_NAME = "shop-build"
#: Addresses that lead nowhere on any network (RFC 5737).
_WIRE = IPv4Network("192.0.2.0/24")
#: Seconds for one step of a build, and for Docker and the registry to answer.
_STEP_S, _READY_S = 300.0, 30.0

_REGISTRY_DIRECTORY = "/var/lib/docker-registry"
_SUPERVISOR_FILE = "/etc/supervisor/conf.d/workshop.conf"
_DOCKER_FILE, _REGISTRY_FILE = "/etc/workshop/docker.json", "/etc/workshop/registry.yml"


@dataclass(frozen=True, slots=True)
class Workshop:
    """A workshop that is open."""

    host: NamespaceHost
    disk: Path

    def run(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: str | None = None, check: bool = True
    ) -> Completed:
        """Run a program there to its end; see :func:`underlay.process.run`."""
        variables = [f"{name}={value}" for name, value in (env or {}).items()]
        words = ("env", *variables, *argv) if variables else tuple(argv)
        return self.host.run(words, timeout=_STEP_S, stdin=stdin, check=check)

    def write(self, path: str, text: str) -> None:
        """Write a file there."""
        self.run(("install", "-D", "-m", "644", "/dev/stdin", path), stdin=text)

    @property
    def registry(self) -> Path:
        """Where this machine sees the registry's directory."""
        return self.disk / _REGISTRY_DIRECTORY.lstrip("/")


@contextmanager
def open_workshop(rootfs: Path, materials: Path, *, cache: Path | None, progress: Progress) -> Iterator[Workshop]:
    """Start a workshop on the tree ``rootfs``, and throw it away in the end.

    What an earlier one of this cache directory left is thrown away first. The caller has the lock of the image store.
    Raises NotReady when it cannot be started.
    """
    name = lab_name(cache)
    labs.down(name)
    progress.step("start the workshop")
    try:
        lab = labs.up(plan(name), rootfs, materials, Quiet())
        shop = _workshop(lab)
        _start_programs(shop)
        yield shop
    finally:
        progress.step("clear the workshop away")
        labs.down(name)


def clear_away(cache: Path | None) -> None:
    """Throw away what a killed build left. The caller has the lock of the image store."""
    labs.down(lab_name(cache))


def lab_name(cache: Path | None) -> str:
    """Return the name of the workshop's lab: one for each cache directory, whose lock its builders hold."""
    place = str((cache or cache_directory()).absolute())
    return f"{_NAME}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"


def plan(name: str) -> Plan:
    """Return the plan of a lab that is one host without any service."""
    gateway, address = (IPv4Interface(f"{_WIRE.network_address + number}/{_WIRE.prefixlen}") for number in (1, 2))
    return Plan(
        lab=name,
        domain="workshop.internal",
        hosts=(Host(_HOST, address, cpus=2, memory=2048),),
        underlay=Underlay(_WIRE, gateway, mtu=1500),
        pools=Pools(docker=_WIRE, swarm=_WIRE),
        tiers=(),
        services=(),
        flows=(),
        published=(),
        tunnel=Tunnel(vni=1, port=4789, subnet=_WIRE),
        timeouts=Timeouts(connect=2.0, command=_READY_S, ready=_READY_S, cache=1.0),
    )


def docker_settings() -> str:
    """Return dockerd's configuration: no network, and the store that keeps an image's digest (containerd's)."""
    settings = {"bridge": "none", "iptables": False, "ip6tables": False, "features": {"containerd-snapshotter": True}}
    return json.dumps(settings, indent=2) + "\n"


def registry_settings() -> str:
    """Return the registry's configuration (https://distribution.github.io/distribution/about/configuration/)."""
    port = REGISTRY.partition(":")[2]
    return f"""\
version: 0.1
log:
  level: warn
storage:
  filesystem:
    rootdirectory: {_REGISTRY_DIRECTORY}
http:
  addr: 127.0.0.1:{port}
"""


def supervisor_settings() -> str:
    """Return what the host's supervisor starts."""
    return f"""\
[program:docker]
command = dockerd --config-file {_DOCKER_FILE}
autorestart = false
redirect_stderr = true

[program:registry]
command = docker-registry serve {_REGISTRY_FILE}
autorestart = false
redirect_stderr = true
"""


def _workshop(lab: NamespaceLab) -> Workshop:
    return Workshop(lab.hosts[_HOST], lab.store.host_directory(_HOST) / "upper")


def _start_programs(shop: Workshop) -> None:
    shop.write(_DOCKER_FILE, docker_settings())
    shop.write(_REGISTRY_FILE, registry_settings())
    shop.write(_SUPERVISOR_FILE, supervisor_settings())
    shop.run(("supervisorctl", "update"))
    questions = {
        "Docker": ("docker", "version"),
        "the registry": ("curl", "--silent", "--show-error", "--fail", f"http://{REGISTRY}/v2/"),
    }
    for name, question in questions.items():
        _await(shop, name, question)


def _await(shop: Workshop, name: str, question: Sequence[str]) -> None:
    def probe() -> NotYet | bool:
        done = shop.run(question, check=False)
        return True if done.ok else NotYet((done.stderr or done.stdout).strip())

    hint = f"{name} is part of the hosts' image: does underlay/image/packages.txt still name it?"
    until(probe, deadline_s=_READY_S, what=f"an answer of {name}", where="image shop", hint=hint, slowest=0.5)
