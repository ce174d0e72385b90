"""Switching one host on and off."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import shutil
import sys
from ipaddress import IPv4Address
from pathlib import Path

from underlay import process, unixhttp
from underlay.errors import NotReady, Problem
from underlay.hosts import layout
from underlay.hosts.namespace import boot, cgroups, wire
from underlay.hosts.namespace.launch import Order
from underlay.hosts.namespace.processes import Process, alive, identify, kill
from underlay.hosts.namespace.state import MACHINE_S, LabState, Store
from underlay.repository import REPOSITORY
from underlay.topology import Host, Plan
from underlay.topology.derive import link_name
from underlay.wait import NotYet, until

_CONFIGURATION = "/etc/supervisor/supervisord.conf"
_SUPERVISOR = ("/usr/bin/supervisord", "-n", "-c", _CONFIGURATION)
_TAIL = 2000
#: Seconds for one answer of a host's supervisor; it is asked again.
_ANSWER_S = 1.0


def wire_digest(plan: Plan) -> str:
    """Return a digest of what the underlay is made from: when it changes, the wire must be laid again."""
    return _digest([plan.lab, str(plan.underlay.gateway), plan.underlay.mtu])


def host_digest(plan: Plan, host: Host, image: Path, repository: Path) -> str:
    """Return a digest of what a host is started with: when it changes, the host must start again."""
    files = layout.hosts_file(host.name, plan.domain, _addresses(plan))
    return _digest([wire_digest(plan), files, str(image), str(repository)])


def cable(plan: Plan, host: Host, pin: Path) -> wire.Cable:
    """Return how a host is plugged into the underlay."""
    return wire.Cable(
        pin=str(pin),
        port=link_name(host.name),
        mac=wire.mac(plan.lab, host.name),
        address=str(host.address),
        gateway=str(plan.underlay.gateway.ip),
        mtu=plan.underlay.mtu,
    )


def start(store: Store, state: LabState, plan: Plan, host: Host) -> Process:
    """Start a host that is off, on the disk it had before, and return its first process.

    Its supervisor may not answer yet: see :func:`wait_ready`. The caller holds the lab's lock. NotReady on failure.
    """
    directory = store.host_directory(host.name)
    clear(store, state, host.name)
    for name in ("upper", "work", "root", "docker"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    directory.parent.chmod(0o700)  # what is on the hosts' disks is not for the machine's other users
    found = cgroups.own_hierarchies()
    groups = tuple(
        _group(hierarchy, made)
        for hierarchy, made in zip(found, cgroups.make(state.lab, host.name, found), strict=True)
    )
    spec = boot.Spec(
        host=host.name,
        lower=state.image,
        directory=str(directory),
        repository=state.repository,
        repository_at=layout.REPOSITORY,
        groups=groups,
        files=_files(store, state, plan, host),
        environment=layout.environment(),
        command=_SUPERVISOR,
    )
    timeout = plan.timeouts.ready
    order = Order(spec, cable(plan, host, store.pin), os.getpid(), timeout)
    done = process.run(
        [sys.executable, "-S", "-P", "-m", "underlay.hosts.namespace.launch"],
        timeout=timeout,
        stdin=order.to_json(),
        env={"PYTHONPATH": str(REPOSITORY), "PATH": layout.PATH, "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=Path("/"),
        where=host.name,
    )
    answer = json.loads(done.stdout)
    first = identify(answer["pid"]) if answer["pid"] else None
    if first is None:
        raise NotReady(
            Problem(host.name, f"it did not start: {answer['error'] or 'it ended at once'}", _log(store, host.name))
        )
    return first


def wait_ready(store: Store, state: LabState, host: str, first: Process, *, deadline_s: float) -> None:
    """Wait until a host's supervisor answers; NotReady, with the end of the host's log, when it does not."""
    socket_path = supervisor_socket(Path(state.image))

    def probe() -> NotYet | bool:
        if not alive(first):
            raise NotReady(Problem(host, "it stopped while it was starting", _log(store, host)))
        # The socket as the host sees it, reached through its first process; links in between would leave its root.
        said = _ask_supervisor(Path(f"/proc/{first.pid}/root{socket_path}"))
        return True if "RUNNING" in said else NotYet(said)

    until(probe, deadline_s=deadline_s, what="an answer of the supervisor", where=host, hint=_log_place(store, host))


def stop(store: Store, state: LabState, host: str) -> None:
    """Cut a host's power and wait until nothing of it runs any more and its port is gone from the bridge."""
    clear(store, state, host)
    if wire.is_pinned(store.pin):
        wire.unplug(store.pin, link_name(host), timeout=MACHINE_S)


def clear(store: Store, state: LabState, host: str) -> None:
    """End every process of a host, recorded or not, and remove its control groups."""
    recorded = state.host(host)
    if recorded is not None and recorded.process is not None:
        # With the first process of a pid namespace all others end (pid_namespaces(7)).
        kill(recorded.process, deadline_s=MACHINE_S)
    groups = [Path(directory) / host for directory in state.cgroups]
    cgroups.kill_all(groups, deadline_s=MACHINE_S, where=host)
    cgroups.remove(groups, deadline_s=MACHINE_S, where=host)
    # overlayfs refuses a work directory that a previous mount left in an unfinished state only if it is still mounted;
    # its content is scratch and is made anew.
    shutil.rmtree(store.host_directory(host) / "work", ignore_errors=True)


def supervisor_socket(image: Path) -> str:
    """Return where the image's supervisor listens, as the host sees it, without the link /var/run."""
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",), strict=False)
    try:
        parser.read_string((image / _CONFIGURATION.lstrip("/")).read_text())
        path = parser.get("unix_http_server", "file")
    except (OSError, configparser.Error) as error:
        hint = "build the image again: ./lab image build"
        raise NotReady(Problem(str(image), f"the image has no usable {_CONFIGURATION} ({error})", hint)) from error
    return path.removeprefix("/var") if path.startswith("/var/run/") else path


def _ask_supervisor(path: Path) -> str:
    body = "<methodCall><methodName>supervisor.getState</methodName></methodCall>"
    headers = {"Content-Type": "text/xml"}
    try:
        said = unixhttp.request(path, "POST", "/RPC2", timeout=_ANSWER_S, body=body, headers=headers)
    except OSError as error:
        return f"no answer ({error})"
    return said.body.decode(errors="replace")


def _group(hierarchy: cgroups.Hierarchy, made: Path) -> boot.Group:
    leaf = cgroups.LEAF if hierarchy.version == 2 else ""
    return boot.Group(str(made), hierarchy.place, hierarchy.aliases, leaf)


def _files(store: Store, state: LabState, plan: Plan, host: Host) -> tuple[boot.File, ...]:
    return (
        boot.File("/etc/hostname", 0o644, f"{host.name}\n"),
        boot.File("/etc/hosts", 0o644, layout.hosts_file(host.name, plan.domain, _addresses(plan))),
        boot.File("/etc/resolv.conf", 0o644, layout.resolver_file()),
        boot.File(layout.SECRET_FILE, 0o600, store.secret()),
        boot.File("/etc/underlay/host.json", 0o644, layout.identity_file(state.lab, host.name)),
        boot.File(layout.PLAN_FILE, 0o644, state.plan_text),
    )


def _addresses(plan: Plan) -> list[tuple[str, IPv4Address]]:
    return [(host.name, host.address.ip) for host in plan.hosts]


def _log_place(store: Store, host: str) -> str:
    return f"read {store.host_directory(host) / 'console.log'}"


def _log(store: Store, host: str) -> str:
    path = store.host_directory(host) / "console.log"
    text = path.read_text(errors="replace")[-_TAIL:].strip() if path.exists() else ""
    return f"{_log_place(store, host)}; its end: {text}" if text else _log_place(store, host)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
