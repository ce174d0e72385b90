"""libvirt where none runs yet: its daemons in a network namespace of their own, with all their files in one directory.

libvirt looks for its files below /etc, /var and /run only. So its daemons get a mount namespace too, in which those
places are ours, and neither the machine's libvirt files nor its interfaces are ever touched. Clients need none of that:
they reach the daemons by a socket, and the guests by entering the network namespace.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from underlay import durable, needs, packages, process
from underlay.errors import NotReady, Problem
from underlay.hosts.namespace import wire
from underlay.hosts.namespace.processes import Process, alive, command_of, identify, kill, namespace_of, using_namespace
from underlay.hosts.namespace.state import DEFAULT_DIRECTORY, LOCK_S, MACHINE_S, state_directory
from underlay.hosts.vagrant.places import lock_file, own_uri, pin, record_file, run_directory
from underlay.progress import Progress, Quiet
from underlay.wait import NotYet, until

#: How libvirt's clients reach the machine's own libvirt.
SYSTEM_URI = "qemu:///system"
#: The variable by which libvirt's clients, Vagrant's plug-in among them, learn where to connect.
URI_VARIABLE = "LIBVIRT_DEFAULT_URI"

#: Directory below ours -> where libvirt looks for it.
_PLACES = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
}
#: What libvirt and Vagrant leave running in the namespace; anything else there was started by a person.
_OURS = ("libvirtd", "virtlogd", "dbus-daemon", "dnsmasq", "libvirt_leasesh", "qemu-system", "ssh", "qemu-img")
#: Without a systemd, control groups or a user of its own (https://libvirt.org/drvqemu.html).
_QEMU_CONF = """\
# Everything runs as root in namespaces of our own, on a machine without systemd.
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = [ ]
remember_owner = 0
namespaces = [ ]
"""
_LIBVIRTD_CONF = """\
# There is no polkit to ask; the directory of the socket is root's alone.
auth_unix_rw = "none"
auth_unix_ro = "none"
"""
_BUS_CONF = """\
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/>
  </policy>
</busconfig>
"""
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}
#: libvirtd asks every QEMU that is installed what it can do before it answers for the first time.
_FIRST_ANSWER_S = 60.0
#: How often TCP sends again before it gives a connection up; 8 is what RFC 1122, section 4.2.3.5, asks for at least.
_RETRIES = 8
_MACHINE = "this machine"
_WHERE = "vm-env"
_BRIDGED = Path("/proc/sys/net/bridge")


@dataclass(frozen=True, slots=True)
class Record:
    """What was made: our directory, directories made for mounts, and the daemons by name."""

    state: Path
    made: tuple[Path, ...]
    daemons: Mapping[str, Process]

    def to_json(self) -> str:
        """Write it as JSON."""
        daemons = {name: [one.pid, one.started, one.boot] for name, one in self.daemons.items()}
        return json.dumps({"state": str(self.state), "made": [str(path) for path in self.made], "daemons": daemons})

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read what to_json wrote; NotReady when it is something else."""
        try:
            data = json.loads(text)
            daemons = {
                name: Process(int(pid), int(start), str(boot)) for name, (pid, start, boot) in data["daemons"].items()
            }
            return cls(Path(data["state"]), tuple(Path(path) for path in data["made"]), daemons)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            hint = "end libvirtd, virtlogd and dbus-daemon by hand, then remove that directory"
            raise NotReady(Problem(str(record_file()), f"this record cannot be read ({error!r})", hint)) from error

    def with_daemon(self, name: str, one: Process) -> Record:
        """Write down one more daemon, and return the new record."""
        known = Record(self.state, self.made, {**self.daemons, name: one})
        _write(known)
        return known

    def running(self) -> tuple[str, ...]:
        """Name the daemons that run."""
        return tuple(name for name, one in self.daemons.items() if alive(one))


def record() -> Record | None:
    """Return what was made, or None."""
    try:
        return Record.from_json(record_file().read_text())
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise NotReady(Problem(str(record_file()), "only root may use the libvirt started here", "use sudo")) from error


def files_directory() -> Path:
    """Return where libvirt's files are while ours runs."""
    return state_directory() / "vm-env"


def is_up() -> bool:
    """Whether our libvirt runs; False as well for those who may not use it, which root alone may."""
    try:
        return record_file().exists() and wire.is_pinned(pin())
    except PermissionError:
        return False


def uri() -> str:
    """Return where libvirt is: ours if it runs, else what the caller's environment says, else the machine's."""
    return own_uri() if is_up() else os.environ.get(URI_VARIABLE) or SYSTEM_URI


def is_inside() -> bool:
    """Whether this process is in the network namespace of our libvirt, or there is none to be in."""
    return not is_up() or namespace_of(os.getpid(), "net") == pin().stat().st_ino


def network() -> Path | None:
    """Return the file that the guests' network is mounted on; None where they can be reached as it is."""
    return pin() if is_up() and not is_inside() else None


def inside(command: Sequence[str]) -> tuple[str, ...]:
    """Return the argument list that runs ``command`` where the guests can be reached: as it is, unless ours runs."""
    there = network()
    return (*(wire.enter_argv(there) if there else ()), *command)


def environment() -> dict[str, str]:
    """Return the caller's environment with what Vagrant and libvirt's clients need to find the right libvirt."""
    own = {URI_VARIABLE: own_uri(), "VAGRANT_DEFAULT_PROVIDER": "libvirt"} if is_up() else {}
    return {**os.environ, **own}


def answers(where: str, *, timeout: float) -> bool:
    """Whether a libvirt answers there."""
    if shutil.which("virsh") is None:
        return False
    try:
        return process.run(("virsh", "-c", where, "version"), timeout=timeout, check=False, where="libvirt").ok
    except process.ProgramTimedOut:
        return False


def is_wanted() -> bool:
    """Whether ours has to be started: neither runs, nor is there a systemd that would start the machine's own."""
    return not is_up() and not answers(SYSTEM_URI, timeout=MACHINE_S) and not _has_its_own()


def start(progress: Progress | None = None) -> bool:
    """Start our libvirt, and return when it answers: True, or False if the machine's own or ours ran already.

    NotReady, with all that is in the way, when it cannot be started.
    """
    show = progress or Quiet()
    show.step("asking for a libvirt")
    if not is_up() and answers(SYSTEM_URI, timeout=MACHINE_S):
        return False
    problems = _obstacles()
    if problems:
        raise NotReady(*problems)
    with _locked():
        known = record()
        if known is not None and len(known.running()) == len(known.daemons) and answers(own_uri(), timeout=MACHINE_S):
            return False
        _remove(known)
        _make(show)
    return True


def stop(*, force: bool = False, progress: Progress | None = None) -> bool:
    """Stop our libvirt and remove all its files, disks of guests too; return whether there was any.

    NotReady while a guest runs or a person's program is in its network, unless ``force``: then these end too.
    """
    if not run_directory().exists():
        return False
    if os.geteuid() != 0:
        raise NotReady(Problem(_MACHINE, "only root can stop it", "run it as root (sudo)"))
    (progress or Quiet()).step("stopping libvirt")
    with _locked():
        known = record()
        if not force:
            _refuse_while_used()
        _remove(known)
    return True


def guests() -> tuple[str, ...]:
    """Name the guests that run."""
    done = process.run(("virsh", "-c", uri(), "list", "--name"), timeout=MACHINE_S, where="libvirt")
    return tuple(done.stdout.split())


def _obstacles() -> list[Problem]:
    if os.geteuid() != 0:
        return [Problem(_MACHINE, "only root can start libvirt", "run it as root (sudo)")]
    if _has_its_own():
        hint = "this machine has systemd, so start the usual one: systemctl enable --now libvirtd"
        return [Problem(_MACHINE, f"no libvirt answers at {SYSTEM_URI}", hint)]
    return packages.problems(packages.missing(needs.LIBVIRT_OF_OURS))


def _has_its_own() -> bool:
    return Path("/run/systemd/system").is_dir() and shutil.which("libvirtd") is not None


def _make(show: Progress) -> None:
    state = files_directory()
    targets = {state / name: Path(place) for name, place in _PLACES.items()}
    targets[run_directory() / "libvirt"] = Path("/run/libvirt")
    made = tuple(place for place in targets.values() if not place.exists())
    known = Record(state, made, {})
    _write(known)  # before anything is made, so that `stop` can undo half of it
    # The daemons make what they need of these but for the last, which Debian's package brings.
    for directory in (*targets, *made, state / "log/qemu"):
        directory.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)  # what is on the guests' disks is root's alone
    (state / "etc/qemu.conf").write_text(_QEMU_CONF)
    (state / "etc/libvirtd.conf").write_text(_LIBVIRTD_CONF)
    bus, bus_conf = run_directory() / "bus", state / "bus.conf"
    bus_conf.write_text(_BUS_CONF.format(socket=bus))
    show.step("making a network of its own")
    _make_network()

    def run(*command: str) -> str:
        environment = {**_ENVIRONMENT, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={bus}"}
        return process.run(command, timeout=MACHINE_S, env=environment, cwd=Path("/"), where=_WHERE).stdout

    show.step("starting libvirt")
    # The first daemon begins the mount namespace, and keeps it.
    begin = (*wire.enter_argv(pin()), "unshare", "--mount", "--propagation", "slave")
    daemon = ("dbus-daemon", f"--config-file={bus_conf}", "--fork", "--nopidfile", "--print-pid")
    first = _identified("dbus-daemon", run(*begin, *daemon))
    known = known.with_daemon("dbus-daemon", first)
    enter = ("nsenter", f"--target={first.pid}", "--mount", f"--net={pin()}")
    for directory, place in targets.items():
        run(*enter, "mount", "--bind", str(directory), str(place))
    # The machine's /sys shows the machine's interfaces; libvirt shall see those of its own namespace.
    run(*enter, "mount", "-t", "sysfs", "sysfs", "/sys")
    for name in ("virtlogd", "libvirtd"):
        pid_file = run_directory() / f"{name}.pid"
        run(*enter, name, "--daemon", f"--pid-file={pid_file}")
        known = known.with_daemon(name, _identified(name, pid_file.read_text()))
    show.step("waiting until libvirt answers")
    until(
        lambda: answers(own_uri(), timeout=_FIRST_ANSWER_S) or NotYet("no answer"),
        deadline_s=_FIRST_ANSWER_S,
        what="an answer of libvirt",
        where=_WHERE,
        hint=f"see {state / 'log/libvirtd.log'}",
    )


def _make_network() -> None:
    pin().touch()
    process.run(("unshare", f"--net={pin()}", "true"), timeout=MACHINE_S, where=_WHERE)
    wire.run_inside(pin(), ("ip", "link", "set", "lo", "up"), timeout=MACHINE_S)
    # Vagrant notices a guest that has died under a connection when TCP gives that up: after one minute or two, where
    # the default of 15 is a quarter of an hour (tcp(7), tcp_retries2).
    wire.run_inside(pin(), ("sysctl", "-qw", f"net.ipv4.tcp_retries2={_RETRIES}"), timeout=MACHINE_S)
    # What guests say to each other crosses a bridge here: it is a switch, not a firewall.
    bridged = [
        path for family in ("ip", "ip6", "arp") if (path := _BRIDGED / f"bridge-nf-call-{family}tables").exists()
    ]
    if bridged:
        wire.run_inside(pin(), ("tee", *map(str, bridged)), timeout=MACHINE_S, stdin="0\n")


def _identified(name: str, pid: str) -> Process:
    found = identify(int(pid)) if pid.strip().isdecimal() else None
    if found is None:
        raise NotReady(Problem(_WHERE, f"{name} ended at once", f"see {files_directory() / 'log'}"))
    return found


def _write(known: Record) -> None:
    durable.replace(record_file(), known.to_json())


def _refuse_while_used() -> None:
    if not wire.is_pinned(pin()):
        return
    problems = []
    users = {pid: command_of(pid) for pid in using_namespace("net", frozenset({pin().stat().st_ino}))}
    running = [pid for pid, name in users.items() if name.startswith("qemu-system")]
    if running:
        names = ", ".join(guests()) if answers(own_uri(), timeout=MACHINE_S) else f"processes {running}"
        hint = "destroy them first: ./lab vagrant destroy -f; or end them with: ./lab vm-env stop --force"
        problems.append(Problem(_WHERE, f"virtual machines still run: {names}", hint))
    others = {pid: name for pid, name in users.items() if not name.startswith(_OURS) and pid != os.getpid()}
    for pid, name in others.items():
        problems.append(Problem(_WHERE, f"process {pid} ({name}) is in its network", "end it, or stop with --force"))
    if problems:
        raise NotReady(*problems)


def _remove(known: Record | None) -> None:
    """Undo whatever of it there is."""
    for one in (known.daemons if known else {}).values():
        kill(one, deadline_s=MACHINE_S)
    if wire.is_pinned(pin()):
        # Kept open, so that the number of the namespace stays its own.
        with pin().open("rb") as opened:
            inodes = frozenset({os.fstat(opened.fileno()).st_ino})
            until(lambda: _end_users(inodes), deadline_s=MACHINE_S, what="the end of its programs", where=_WHERE)
    wire.release(pin(), timeout=MACHINE_S)
    state = known.state if known else files_directory()
    if state.exists():
        shutil.rmtree(state)
    for place in known.made if known else ():
        with suppress(OSError):  # someone has put something there
            place.rmdir()
    if state.parent == DEFAULT_DIRECTORY:
        with suppress(OSError):  # a lab's
            DEFAULT_DIRECTORY.rmdir()
    for path in run_directory().iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != lock_file().name:
            path.unlink(missing_ok=True)


def _end_users(inodes: frozenset[int]) -> NotYet | bool:
    users = [pid for pid in using_namespace("net", inodes) if pid != os.getpid()]
    for one in filter(None, map(identify, users)):
        kill(one, deadline_s=MACHINE_S)
    return NotYet(", ".join(f"{pid} ({command_of(pid)})" for pid in users)) if users else True


@contextmanager
def _locked() -> Iterator[None]:
    """Let one command at a time start or stop it; the directory goes again if nothing is in it afterwards."""
    run_directory().mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(lock_file(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until(lambda: _try_lock(descriptor), deadline_s=LOCK_S, what="access to libvirt", where=_WHERE,
              hint="another command is starting or stopping it: try again")  # fmt: skip
        yield
    finally:
        if not record_file().exists():
            lock_file().unlink(missing_ok=True)
            with suppress(OSError):
                run_directory().rmdir()
        os.close(descriptor)


def _try_lock(descriptor: int) -> NotYet | bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return NotYet("another command holds it")
    return True
