"""The underlay: a bridge in a network namespace of its own, into which every host is plugged.

The namespace is kept by a bind mount of our own and not by `ip netns add`, which turns the machine's /run/netns into a
shared mount and leaves it so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from underlay import mountinfo, process
from underlay.mountinfo import Mount

#: The bridge's name within the underlay's namespace.
BRIDGE = "underlay0"
#: A host's end of its cable: the name of a virtual machine's second network card.
NIC = "eth1"
_SYSCTL = Path("/proc/sys/net")


@dataclass(frozen=True, slots=True)
class Cable:
    """What is needed to plug one host in; ``address`` and ``gateway`` as ``ip`` writes them, ``mtu`` in bytes."""

    pin: str
    port: str
    mac: str
    address: str
    gateway: str
    mtu: int


def mac(*words: str) -> str:
    """Return a locally administered unicast address that the words determine.

    A host keeps its address when its power is cut, as a machine does: its neighbours need not learn it again.
    """
    digest = _digest("\0".join(words))
    return ":".join(["02", *(digest[index : index + 2] for index in range(0, 10, 2))])


def bridge_batch(lab: str, gateway: str, mtu: int) -> str:
    """Return the input of ``ip -batch`` that makes the bridge. It may be run again on a bridge that is there."""
    # `replace` and `set` do not mind what exists; only `add` does, so the caller leaves that line out.
    return "\n".join(
        [
            # A bridge without an address of its own takes its lowest port's, and changes it as hosts come and go.
            f"link set {BRIDGE} address {mac(lab)} mtu {mtu}",
            f"address replace {gateway} dev {BRIDGE}",
            f"link set {BRIDGE} up",
            "link set lo up",
            "",
        ]
    )


def ensure(pin: Path, lab: str, gateway: str, mtu: int, *, timeout: float) -> None:
    """Make the underlay's namespace and bridge, or complete what an earlier attempt left of them."""
    pin.parent.mkdir(parents=True, exist_ok=True)
    if not is_pinned(pin):
        pin.touch(exist_ok=True)
        process.run(["unshare", f"--net={pin}", "true"], timeout=timeout, where="underlay")
    # Without IPv6 nothing but the hosts' own packets is on the wire (no router solicitations, no MLD).
    files = [_SYSCTL / "ipv6/conf" / name / "disable_ipv6" for name in ("all", "default")]
    if all(file.exists() for file in files):
        run_inside(pin, ["tee", *map(str, files)], timeout=timeout, stdin="1\n")
    if not run_inside(pin, ["ip", "link", "show", "dev", BRIDGE], timeout=timeout, check=False).ok:
        run_inside(pin, ["ip", "link", "add", BRIDGE, "type", "bridge"], timeout=timeout)
    run_inside(pin, ["ip", "-batch", "-"], timeout=timeout, stdin=bridge_batch(lab, gateway, mtu))


def plug(cable: Cable, pid: int, *, timeout: float) -> None:
    """Connect the network namespace of process ``pid`` to the bridge, and give it its address and default route."""
    peer = f"peer name {NIC} address {cable.mac} mtu {cable.mtu} netns {pid}"
    outside = [
        f"link add {cable.port} mtu {cable.mtu} type veth {peer}",
        f"link set {cable.port} master {BRIDGE} up",
    ]
    inside = [
        "link set lo up",
        f"address add {cable.address} dev {NIC}",
        f"link set {NIC} up",
        f"route add default via {cable.gateway}",
    ]
    unplug(Path(cable.pin), cable.port, timeout=timeout)
    run_inside(Path(cable.pin), ["ip", "-batch", "-"], timeout=timeout, stdin="\n".join([*outside, ""]))
    enter = ["nsenter", f"--target={pid}", "--net", "ip", "-batch", "-"]
    process.run(enter, timeout=timeout, stdin="\n".join([*inside, ""]), where="underlay")


def unplug(pin: Path, port: str, *, timeout: float) -> None:
    """Remove a host's port from the bridge, if it is there.

    The kernel does so by itself when the host's namespace goes, but only some time afterwards.
    """
    done = run_inside(pin, ["ip", "link", "delete", "dev", port], timeout=timeout, check=False)
    if not done.ok and "Cannot find device" not in done.stderr:
        raise process.ProgramFailed(done, "underlay")


def run_inside(
    pin: Path, command: Sequence[str], *, timeout: float, check: bool = True, stdin: str | None = None
) -> process.Completed:
    """Run a program of this machine in the underlay's namespace."""
    return process.run([*enter_argv(pin), *command], timeout=timeout, check=check, stdin=stdin, where="underlay")


def enter_argv(pin: Path) -> tuple[str, ...]:
    """Return what goes before a program so that it runs in the underlay's namespace."""
    return ("nsenter", f"--net={pin}")


def is_pinned(pin: Path) -> bool:
    """Whether a namespace is mounted on that file."""
    return mounts_on(mountinfo.mounts(), pin) > 0


def mounts_on(mounts: Sequence[Mount], path: Path) -> int:
    """Return how many of these mounts are on exactly that path."""
    return sum(mount.point == path for mount in mounts)


def release(pin: Path, *, timeout: float) -> None:
    """Let go of the underlay's namespace; the kernel then removes it with all that is in it. No error if none."""
    while is_pinned(pin):
        process.run(["umount", str(pin)], timeout=timeout, where="underlay")
    # Removing the file also takes the mount out of mount namespaces that were copied meanwhile.
    pin.unlink(missing_ok=True)
    for directory in (pin.parent, pin.parent.parent):
        try:
            directory.rmdir()
        except OSError:
            break  # another lab's, or not there


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
