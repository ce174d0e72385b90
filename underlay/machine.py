"""The machine that the lab stands on: what must be installed, and where its own addresses are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from underlay.errors import NotReady, Problem
from underlay.process import run
from underlay.progress import Progress
from underlay.topology import Plan

#: Seconds for the package manager: it downloads.
_INSTALL_S = 600.0


@dataclass(frozen=True, slots=True)
class Need:
    """A program of the machine that Underlay starts, the Debian package that holds it, and why."""

    program: str
    package: str
    why: str


NEEDS = (
    Need("ip", "iproute2", "makes the wire between the hosts"),
    Need("nsenter", "util-linux", "enters a host"),
    Need("mount", "mount", "keeps the wire's namespace"),
    Need("mmdebstrap", "mmdebstrap", "builds the hosts' root filesystem"),
    Need("tar", "tar", "unpacks it"),
)
_KEYRING = Need("", "debian-archive-keyring", "knows the archive's signatures")
_KEYRING_FILE = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def missing() -> tuple[Need, ...]:
    """Return what is not installed."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    found = [need for need in NEEDS if shutil.which(need.program, path=path) is None]
    return (*found, *(() if _KEYRING_FILE.exists() else (_KEYRING,)))


def install_missing(progress: Progress, say: Callable[[str], None]) -> None:
    """Install what is missing with apt-get, saying what and why; NotReady if this machine has no apt or we no right."""
    needs = missing()
    if not needs:
        return
    packages = sorted({need.package for need in needs})
    command = ("apt-get", "install", "--yes", "--no-install-recommends", *packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        by_hand = "as root: " + " ".join(command) if shutil.which("apt-get") else "with this system's package manager"
        raise NotReady(
            *(
                Problem("this machine", f"{need.package} is not installed: it {need.why}", f"install it {by_hand}")
                for need in needs
            )
        )
    for need in needs:
        say(f"installing {need.package}: it {need.why}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    progress.step(f"installing {', '.join(packages)}")
    if run(command, timeout=_INSTALL_S, check=False, env=environment).ok:
        return
    progress.step("updating the package lists")
    run(("apt-get", "update"), timeout=_INSTALL_S, env=environment)
    progress.step(f"installing {', '.join(packages)}")
    run(command, timeout=_INSTALL_S, env=environment)


def collisions(plan: Plan) -> Iterator[str]:
    """Say which of the plan's subnets this machine has a route into already.

    Namespace hosts have routes of their own, so this is a note, not an error: it matters when the same plan is used
    with virtual machines, or when a person wonders which of two networks answered.
    """
    planned = {f"tier {tier.name}": tier.subnet for tier in plan.tiers}
    planned |= {"the tunnel": plan.tunnel.subnet, "Docker's pool": plan.pools.docker, "Swarm's pool": plan.pools.swarm}
    for route in routes(Path("/proc/net/route").read_text()):
        for name, subnet in planned.items():
            if subnet.overlaps(route):
                yield f"{name} ({subnet}) overlaps a route of this machine ({route})"


def routes(text: str) -> Iterator[IPv4Network]:
    """Read the destinations of /proc/net/route (proc_net(5): hexadecimal, in host byte order) but the default route."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        destination, mask = (int(fields[column], 16).to_bytes(4, "little") for column in (1, 7))
        if any(mask):
            yield IPv4Network((destination, ".".join(map(str, mask))))
