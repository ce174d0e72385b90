"""What would keep ``vagrant up`` from working, found before it begins; and what it left when it has ended."""

from __future__ import annotations

import os
import re
import socket
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from underlay import needs, packages, process
from underlay.errors import NotReady, Problem
from underlay.hosts.vagrant import environment as vmenv
from underlay.hosts.vagrant.hypervisors import domain_name
from underlay.topology import Plan

_SECONDS = 30.0
_MACHINE = "this machine"
#: Where VirtualBox is told which host-only ranges it may use, and the one it may use without being told
#: (VirtualBox manual, 6.7).
VBOX_NETWORKS = Path("/etc/vbox/networks.conf")
VBOX_DEFAULT = IPv4Network("192.168.56.0/21")
#: Our box's name as vagrant-libvirt writes it in the names of volumes.
_BOX_VOLUME = "underlay-VAGRANTSLASH-host_vagrant_box_image_"
#: MiB that QEMU needs for itself beside a guest's memory.
_OVERHEAD_MIB = 200
#: Characters of a serial console that are worth showing.
_TAIL = 1500
_SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class Found:
    """What libvirt holds by name."""

    domains: frozenset[str]
    networks: frozenset[str]
    volumes: frozenset[str]


def memory_problems(plan: Plan, running: Iterable[str], meminfo: str) -> Iterator[Problem]:
    """Say if the hosts that have yet to start do not fit into the memory that is free (proc(5), MemAvailable)."""
    needed = sum(host.memory + _OVERHEAD_MIB for host in plan.hosts if host.name not in set(running))
    match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    free = int(match[1]) // 1024 if match else needed
    if free < needed:
        what = f"the hosts need {needed} MiB of memory, {free} MiB are free"
        yield Problem(_MACHINE, what, "end other programs, or give the hosts less `memory` in topology.yaml")


def range_problems(plan: Plan, allowed: str | None) -> Iterator[Problem]:
    """Say if VirtualBox will refuse the underlay's addresses; ``allowed`` is the text of its networks.conf, or None."""
    subnet = plan.underlay.subnet
    if allowed is None:
        ranges = [VBOX_DEFAULT]
    else:
        words = [word for line in allowed.splitlines() if line.strip().startswith("*") for word in line.split()[1:]]
        ranges = [IPv4Network(word, strict=False) for word in words if re.fullmatch(r"[\d.]+/\d+", word)]
    if not any(subnet.subnet_of(known) for known in ranges):
        names = ", ".join(map(str, ranges)) or "none"
        hint = f"write `* {subnet}` into {VBOX_NETWORKS}, or choose another `underlay` in topology.yaml"
        yield Problem("underlay", f"VirtualBox does not allow {subnet} for host-only networks, only: {names}", hint)


def leftover_problems(plan: Plan, known: Iterable[str], found: Found) -> Iterator[Problem]:
    """Say which domains and volumes have our names although Vagrant, here, made no such machine (``known``)."""
    for host in plan.hosts:
        name = domain_name(plan.lab, host.name)
        if host.name in set(known):
            continue
        if name in found.domains:
            virsh = f"virsh -c '{vmenv.uri()}'"
            hint = f"if it is not in use: {virsh} destroy {name}; {virsh} undefine {name} --nvram"
            yield Problem("libvirt", f"a domain {name} is there that was not made from this checkout", hint)
        for volume in sorted(found.volumes):
            if volume == f"{name}.img" or volume.startswith(f"{name}-vd"):
                hint = f"if it is not in use: virsh -c '{vmenv.uri()}' vol-delete --pool default {volume}"
                yield Problem("libvirt", f"a disk {volume} of an earlier run is there", hint)


def network_problems(plan: Plan, networks: dict[str, str]) -> Iterator[Problem]:
    """Say which libvirt network (name -> XML) has the underlay's name or addresses, but not both."""
    for name, xml in networks.items():
        subnets = set(subnets_of(xml))
        if name == plan.lab and plan.underlay.subnet not in subnets:
            seen = ", ".join(map(str, subnets)) or "no addresses"
            hint = f"choose another `lab` in topology.yaml, or: virsh -c '{vmenv.uri()}' net-undefine {name}"
            yield Problem("libvirt", f"its network {name} has {seen}, the plan says {plan.underlay.subnet}", hint)
        if name != plan.lab and any(subnet.overlaps(plan.underlay.subnet) for subnet in subnets):
            hint = "choose another `underlay` in topology.yaml, or remove that network"
            yield Problem("libvirt", f"its network {name} uses addresses of {plan.underlay.subnet}", hint)


def subnets_of(xml: str) -> list[IPv4Network]:
    """Return the subnets of a network's description (https://libvirt.org/formatnetwork.html)."""
    found = []
    for ip in ET.fromstring(xml).findall("ip"):  # noqa: S314 - libvirt wrote it
        address, mask = ip.get("address", ""), ip.get("netmask") or ip.get("prefix")
        if ip.get("family", "ipv4") == "ipv4" and mask:
            found.append(IPv4Network(f"{address}/{mask}", strict=False))
    return found


def check(plan: Plan, provider: str, known: Sequence[str]) -> None:
    """Raise NotReady with everything that keeps the plan's hosts from starting; ``known``: hosts that were made."""
    meminfo = Path("/proc/meminfo")
    problems = list(memory_problems(plan, known, meminfo.read_text())) if meminfo.exists() else []
    problems += packages.problems(packages.missing((needs.RSYNC,)))
    if provider == "virtualbox":
        allowed = VBOX_NETWORKS.read_text() if VBOX_NETWORKS.exists() else None
        problems += range_problems(plan, allowed)
    if provider == "libvirt":
        problems += _libvirt_problems(plan, known)
    if problems:
        raise NotReady(*problems)


def unreachable() -> list[Problem]:
    """Say why libvirt cannot be used from here, if it cannot."""
    where = vmenv.uri()
    if not needs.VIRSH.is_met():
        return packages.problems(packages.missing(needs.LIBVIRT))
    done = process.run(("virsh", "-c", where, "version"), timeout=_SECONDS, check=False, where="libvirt")
    if done.ok:
        return []
    said = done.stderr.strip().removeprefix("error: ")
    if "ermission denied" in said or "authentication" in said:
        user = os.environ.get("USER", "you")
        hint = f"join its group, then log in anew: adduser {user} libvirt"
    elif Path("/run/systemd/system").is_dir():
        hint = "start it: systemctl enable --now libvirtd"
    else:
        hint = "this machine has no systemd: start one with ./lab vm-env start, then say ./lab vagrant up"
    return [Problem(_MACHINE, f"libvirt does not answer at {where}: {said}", hint)]


def found() -> Found:
    """Ask libvirt what it holds."""
    pools = _virsh("pool-list", "--name").split()
    volumes = [line.split()[0] for line in _virsh("vol-list", "default").splitlines()[2:] if line.split()]
    return Found(
        frozenset(_virsh("list", "--all", "--name").split()),
        frozenset(_virsh("net-list", "--all", "--name").split()),
        frozenset(volumes if "default" in pools else ()),
    )


def clean(plan: Plan, known: Sequence[str]) -> tuple[str, ...]:
    """Remove what ``vagrant destroy`` leaves once no machine (``known``) is left: our box's copy in libvirt's pool.

    Returns the names of what was removed. A copy that any disk still builds on stays.
    """
    if known:
        return ()
    here = found()
    used = [_virsh("vol-dumpxml", "--pool", "default", name) for name in sorted(here.volumes)]
    removed = []
    for volume in sorted(name for name in here.volumes if name.startswith(_BOX_VOLUME)):
        backing = [text for text in used if f"/{volume}</path>" in text.partition("<backingStore>")[2]]
        if not backing:
            _virsh("vol-delete", "--pool", "default", volume)
            removed.append(volume)
    return tuple(removed)


def left(plan: Plan) -> tuple[str, ...]:
    """Name what libvirt still holds of the plan's lab: domains, networks, volumes."""
    here = found()
    names = {domain_name(plan.lab, host.name) for host in plan.hosts}
    return (
        *(f"domain {name}" for name in sorted(here.domains & names)),
        *(f"network {name}" for name in sorted(here.networks & {plan.lab})),
        *(
            f"volume {name}"
            for name in sorted(here.volumes)
            if name.startswith((_BOX_VOLUME, *(f"{own}." for own in names), *(f"{own}-vd" for own in names)))
        ),
    )


def post_mortem(plan: Plan, consoles: Mapping[str, Path]) -> list[Problem]:
    """Return, for each host that runs but cannot be reached, the end of its serial console.

    It is asked from where this process is, which must be where Vagrant is.
    """
    problems = []
    for host in plan.hosts:
        name = domain_name(plan.lab, host.name)
        if _virsh("domstate", name).strip() != "running":
            continue
        address = re.search(r"ipv4\s+([\d.]+)/", _virsh("domifaddr", name))
        what = "it runs, but has not asked for an address"
        if address:
            said = _ssh_answer(address[1], plan.timeouts.connect)
            if said is None:
                continue
            what = f"it runs, but nothing answers at {address[1]}:{_SSH_PORT}: {said}"
        problems.append(Problem(host.name, what, _console_hint(consoles[host.name])))
    return problems


def _ssh_answer(address: str, timeout: float) -> str | None:
    """Return why no SSH server can be reached there, or None if one can."""
    try:
        socket.create_connection((address, _SSH_PORT), timeout).close()
    except OSError as error:
        return str(error)
    return None


def _console_hint(file: Path) -> str:
    if not os.access(file, os.R_OK):
        return f"its serial console is in {file}, which only root reads, or which is not there"
    tail = file.read_text(errors="replace")[-_TAIL:].strip()
    return f"the end of its serial console ({file}):\n{tail}" if tail else f"its serial console is silent ({file})"


def _libvirt_problems(plan: Plan, known: Sequence[str]) -> list[Problem]:
    if vmenv.is_up() and not vmenv.is_inside():
        what = "libvirt runs in a network of its own, and this command does not: it would never reach a guest"
        return [Problem(_MACHINE, what, "say `./lab vagrant ...` instead of `vagrant ...`")]
    problems = unreachable()
    if problems:
        return problems
    here = found()
    networks = {name: _virsh("net-dumpxml", name) for name in sorted(here.networks)}
    return [*leftover_problems(plan, known, here), *network_problems(plan, networks)]


def _virsh(*words: str) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    return process.run(
        ("virsh", "-c", vmenv.uri(), *words), timeout=_SECONDS, check=False, env=environment, where="libvirt"
    ).stdout
