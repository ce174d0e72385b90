"""What the first process of a host does before it becomes the supervisor. Runs in the launcher's child, as root.

The order matters. The new root is entered *before* anything else is mounted or written, so that a symbolic link on a
host's disk can only ever lead to another place on that disk. Sources from outside are opened beforehand and reached
through /proc/self/fd. See mount_namespaces(7), pivot_root(2), cgroup_namespaces(7).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from underlay import libc
from underlay.libc import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    NAMESPACES,
)

_GIGA = "mode=755,size=1g"

#: Character devices of /dev: name, major, minor, mode (devices.txt of the kernel).
_DEVICES = (
    ("null", 1, 3, 0o666),
    ("zero", 1, 5, 0o666),
    ("full", 1, 7, 0o666),
    ("random", 1, 8, 0o666),
    ("urandom", 1, 9, 0o666),
    ("tty", 5, 0, 0o666),
    ("net/tun", 10, 200, 0o666),
    ("fuse", 10, 229, 0o666),
)
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
#: A fresh namespace copies the machine's IPv4 settings (devconf_inherit_init_net); a host starts with the kernel's own
#: defaults instead, as a machine does. ip_forward comes first: writing it resets others (ip-sysctl.rst).
_IPV4_DEFAULTS = {
    "accept_redirects": 1,
    "arp_announce": 0,
    "arp_filter": 0,
    "arp_ignore": 0,
    "log_martians": 0,
    "proxy_arp": 0,
    "route_localnet": 0,
    "rp_filter": 0,
    "secure_redirects": 1,
    "send_redirects": 1,
}


@dataclass(frozen=True, slots=True)
class File:
    """A small file to write on the host; ``mode`` as for chmod."""

    path: str
    mode: int
    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """The host's control group in one hierarchy: where it is, where the host shall see it, and by which other names.

    ``leaf`` names the group below it that takes the host's own processes ("": they stay where they are).
    """

    directory: str
    place: str
    aliases: tuple[str, ...]
    leaf: str


@dataclass(frozen=True, slots=True)
class Spec:
    """All that the first process has to know; it asks nothing and reads no plan."""

    host: str
    lower: str
    directory: str
    repository: str
    repository_at: str
    groups: tuple[Group, ...]
    files: tuple[File, ...]
    environment: dict[str, str]
    command: tuple[str, ...]

    def to_json(self) -> str:
        """Write the specification as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Spec:
        """Read what to_json wrote."""
        data = json.loads(text)
        data["groups"] = tuple(Group(**{**group, "aliases": tuple(group["aliases"])}) for group in data["groups"])
        data["files"] = tuple(File(**file) for file in data["files"])
        data["command"] = tuple(data["command"])
        return cls(**data)


class StepError(Exception):
    """A step could not be done; the text says which and why."""


@contextmanager
def step(name: str) -> Iterator[None]:
    """Say which step failed, in words."""
    try:
        yield
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        raise StepError(f"{name}: {error.strerror}{place}") from error


def enter_namespaces(spec: Spec) -> None:
    """Join the host's control groups, then leave all of the machine's namespaces (the pid one at the next fork)."""
    with step("join the control groups"):
        for group in spec.groups:
            _join(Path(group.directory))
    for name, flag in NAMESPACES.items():
        with step(f"make the {name} namespace"):
            libc.unshare(flag)
    with step("prepare the control groups"):
        # The group namespace begins at the group that was joined above; only now may its processes move to a leaf.
        for group in spec.groups:
            if group.leaf:
                leaf = Path(group.directory, group.leaf)
                leaf.mkdir(exist_ok=True)
                _join(leaf)
                controllers = Path(group.directory, "cgroup.controllers").read_text().split()
                for controller in controllers:
                    Path(group.directory, "cgroup.subtree_control").write_text(f"+{controller}")
    with step("set the kernel's defaults"):
        _set_defaults()
    with step("make all mounts private"):
        libc.mount("none", "/", flags=MS_REC | MS_PRIVATE)


def become_host(spec: Spec, wait: Callable[[], None], log: int) -> NoReturn:
    """Build the host's view of the world, ``wait`` for its cable, and become its supervisor."""
    os.setsid()
    with step("set the host name"):
        socket.sethostname(spec.host)
    with step("open what comes from outside"):
        sources = {name: os.open(path, os.O_PATH | os.O_CLOEXEC) for name, path in _sources(spec)}
    with step("mount the disk"):
        _mount_disk(spec)
    with step("change the root"):
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.chdir(f"{spec.directory}/root")
        libc.pivot_root(".", ".")
        os.chroot(".")
        os.chdir("/")
    with step("mount /proc, /sys and /dev"):
        _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        _mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        _make_dev()
    with step("mount the repository and the disk for containers"):
        _bind(sources["repository"], spec.repository_at, read_only=True)
        _bind(sources["docker"], "/var/lib/docker")
    with step("mount the control groups"):
        _mount_groups(spec, sources)
    with step("protect the machine's settings"):
        _protect()
    with step("mount /run and /tmp"):
        _mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, _GIGA)
        _mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=1g")  # noqa: S108 - the host's own
        Path("/run/lock").mkdir(mode=0o1777)
    with step("leave the machine's root"):
        os.fchdir(root)
        libc.detach(".")
        os.chdir("/")
    with step("write the host's files"):
        for file in spec.files:
            _write(file)
    wait()
    with step(f"start {spec.command[0]}"):
        _reset_process(log)
        os.execve(spec.command[0], list(spec.command), spec.environment)  # noqa: S606 - this process becomes it
    raise AssertionError("execve returned")


def _sources(spec: Spec) -> Iterator[tuple[str, str]]:
    yield "repository", spec.repository
    yield "docker", f"{spec.directory}/docker"
    for group in spec.groups:
        yield f"group {group.place}", group.directory


def _join(directory: Path) -> None:
    Path(directory, "cgroup.procs").write_text("0")  # 0 means the writer (cgroups(7))


def _set_defaults() -> None:
    net = Path("/proc/sys/net")
    wanted = {net / "ipv4/ip_forward": 0}
    for conf in ("all", "default"):
        wanted |= {net / "ipv4/conf" / conf / name: value for name, value in _IPV4_DEFAULTS.items()}
    for path, value in wanted.items():
        if path.exists() and path.read_text().strip() != str(value):
            path.write_text(str(value))


def _mount_disk(spec: Spec) -> None:
    own = _escape(spec.directory)
    data = f"lowerdir={_escape(spec.lower)},upperdir={own}/upper,workdir={own}/work"
    libc.mount("overlay", f"{spec.directory}/root", "overlay", 0, data)


def _escape(path: str) -> str:
    # overlayfs.rst: a colon separates lower directories, a comma ends an option.
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    Path(target).mkdir(parents=True, exist_ok=True)
    libc.mount(source, target, kind, flags, data)


def _bind(source: int, target: str, *, read_only: bool = False) -> None:
    Path(target).mkdir(parents=True, exist_ok=True)
    libc.mount(f"/proc/self/fd/{source}", target, flags=MS_BIND)
    if read_only:  # a bind mount takes flags only when it is mounted again (mount(2))
        libc.mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _make_dev() -> None:
    _mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=755,size=64k")
    dev = Path("/dev")
    os.umask(0)
    for directory in ("net", "pts", "shm"):
        (dev / directory).mkdir(mode=0o755)
    for name, major, minor, mode in _DEVICES:
        os.mknod(dev / name, stat.S_IFCHR | mode, os.makedev(major, minor))
    os.umask(0o022)
    for name, target in _LINKS.items():
        (dev / name).symlink_to(target)
    libc.mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    libc.mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")  # noqa: S108 - the host's own


def _mount_groups(spec: Spec, sources: dict[str, int]) -> None:
    top = "/sys/fs/cgroup"
    if any(group.place for group in spec.groups):
        _mount("tmpfs", top, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=64k")
    for group in spec.groups:
        _bind(sources[f"group {group.place}"], f"{top}/{group.place}".rstrip("/"))
        for alias in group.aliases:
            Path(top, alias).symlink_to(group.place)


def _protect() -> None:
    # Settings outside of net belong to the machine, not to a namespace; so does the key that reboots it.
    libc.mount("/proc/sys", "/proc/sys", flags=MS_BIND)
    libc.mount("/proc/sys/net", "/proc/sys/net", flags=MS_BIND)
    libc.mount("none", "/proc/sys", flags=MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if Path("/proc/sysrq-trigger").exists():  # not every kernel has one
        libc.mount("/dev/null", "/proc/sysrq-trigger", flags=MS_BIND)


def _write(file: File) -> None:
    path = Path(file.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # a link here must not lead the text elsewhere
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, file.mode)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(file.text)


def _reset_process(log: int) -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is not None:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.stdout.flush()
    null = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    # Only the three streams go on; everything else was opened so that it closes by itself, but be sure of it.
    for entry in tuple(Path("/proc/self/fd").iterdir()):
        if int(entry.name) > 2 and entry.is_symlink():
            os.set_inheritable(int(entry.name), False)
