"""Labs of namespace hosts: up, down, find, list. Everything needs root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from underlay.errors import NotReady, Problem
from underlay.hosts.namespace import cgroups, power, wire
from underlay.hosts.namespace.machines import NamespaceHost, NamespaceLab, Outside
from underlay.hosts.namespace.preflight import preflight
from underlay.hosts.namespace.processes import alive, command_of, kill, using_namespace
from underlay.hosts.namespace.state import (
    DIRECTORY_VARIABLE,
    MACHINE_S,
    HostState,
    LabState,
    Store,
    store,
    stored_labs,
)
from underlay.hosts.provisioning import tell
from underlay.progress import Progress, Quiet
from underlay.topology import Plan, parse_plan, render_plan
from underlay.wait import NotYet, until

#: Hosts that are started at the same time.
_MOST_AT_ONCE = 8

__all__ = ["NamespaceHost", "NamespaceLab", "Outside", "down", "find_lab", "list_labs", "preflight", "up"]


def up(plan: Plan, image: Path, repository: Path, progress: Progress | None = None) -> NamespaceLab:
    """Bring the plan's lab up and return it when the supervisor of every host answers.

    ``image`` is an unpacked root
    filesystem, ``repository`` the directory that hosts see as /vagrant. May be run again at any time: a host that runs
    and was started from the same is kept, one that is off starts on the disk it had, one whose address or neighbours
    changed starts again, one that left the plan is removed.

    NotReady, with every obstacle, when the machine cannot hold a lab, another command is changing this lab, a host does
    not start, or the lab stands on another image (its disks only fit the image they were made with).
    """
    show = progress or Quiet()
    problems = preflight()
    if problems:
        raise NotReady(*problems)
    place = store(plan.lab)
    with place.locked():
        before = place.read()
        if before is None:
            _refuse_unknown(place)
        state = _planned(plan, image.resolve(), repository.resolve(), before)
        _refuse_other_image(before, state)
        place.write(state)
        place.make_secret()
        _retire(place, before, state, show)
        show.step("laying the wire")
        wire.ensure(place.pin, plan.lab, str(plan.underlay.gateway), plan.underlay.mtu, timeout=plan.timeouts.command)
        state = _start_missing(place, state, plan, show)
        lab = NamespaceLab(place, plan)
        # Those that were kept; and the last `up` may have been killed between its record and its hosts.
        tell(lab.hosts.values(), state.plan_text, place.secret())
    return lab


def down(lab: str, progress: Progress | None = None) -> bool:
    """Remove everything of a lab, and return whether there was anything.

    Needs nothing but the lab's name: not the plan, not the command that brought it up, not a complete record. Returns
    when the kernel has let go of the lab's processes, namespaces, control groups and mounts. NotReady, saying what
    stayed, when it does not; it can then be run again.
    """
    show = progress or Quiet()
    place = store(lab)
    if not _anything(place):
        return False
    if os.geteuid() != 0:
        raise NotReady(Problem(f"lab {lab}", "only root can take a lab down", "run it as root (sudo)"))
    with place.locked():
        state = _readable(place)
        hosts = state.hosts if state else ()
        directories = _group_directories(lab, state)
        firsts = [host.process for host in hosts if host.process is not None and alive(host.process)]
        networks = [Path(f"/proc/{first.pid}/ns/net") for first in firsts]
        with _held([*networks, *([place.pin] if wire.is_pinned(place.pin) else [])]) as inodes:
            show.step("stopping the hosts")
            for first in firsts:
                kill(first, deadline_s=MACHINE_S)
            cgroups.kill_all(directories, deadline_s=MACHINE_S, where=f"lab {lab}")
            _wait_unused(lab, inodes)
        show.step("removing the wire")
        wire.release(place.pin, timeout=MACHINE_S)
        cgroups.remove(directories, deadline_s=MACHINE_S, where=f"lab {lab}")
        show.step("removing the disks")
        _remove_files(place)
    return True


def find_lab(name: str) -> NamespaceLab | None:
    """Return the lab of that name as it was last brought up, or None when there is none. Its hosts may be off."""
    place = store(name)
    state = place.read()
    return None if state is None else NamespaceLab(place, parse_plan(state.plan_text, f"lab {name}"))


def list_labs() -> tuple[str, ...]:
    """Return the names of all labs that `down` would find something of, sorted."""
    return stored_labs()


def _planned(plan: Plan, image: Path, repository: Path, before: LabState | None) -> LabState:
    hosts = []
    for host in plan.hosts:
        made_from = power.host_digest(plan, host, image, repository)
        old = before.host(host.name) if before else None
        keep = old is not None and old.made_from == made_from and old.process is not None and alive(old.process)
        hosts.append(HostState(host.name, made_from, old.process if old and keep else None))
    directories = cgroups.lab_directories(plan.lab, cgroups.own_hierarchies())
    return LabState(
        lab=plan.lab,
        plan_text=render_plan(plan),
        image=str(image),
        repository=str(repository),
        wire=power.wire_digest(plan),
        cgroups=tuple(str(directory) for directory in directories),
        hosts=tuple(hosts),
    )


def _refuse_unknown(place: Store) -> None:
    """Refuse to make what another record, kept elsewhere, has made already: names in the kernel are the machine's."""
    if cgroups.members(_group_directories(place.lab, None)) or wire.is_pinned(place.pin):
        what = f"a lab of this name runs, but nothing is recorded of it in {place.directory}"
        hint = f"set {DIRECTORY_VARIABLE} as it was when it was brought up, or remove that lab: ./lab down"
        raise NotReady(Problem(f"lab {place.lab}", what, hint))


def _refuse_other_image(before: LabState | None, state: LabState) -> None:
    if before is None or before.image == state.image:
        return
    what = f"its hosts' disks were made with the image {before.image}, now it is {state.image}"
    raise NotReady(Problem(f"lab {state.lab}", what, "begin anew: ./lab down, then ./lab up"))


def _retire(place: Store, before: LabState | None, state: LabState, show: Progress) -> None:
    """Stop what runs and shall not run so any more; forget the disks of hosts that left the plan."""
    for host in before.hosts if before else ():
        now = state.host(host.name)
        # A host that left the plan may run without being recorded: `up` may have been killed while it started it.
        if before and (now is None or (host.process is not None and now.process is None)):
            show.step(f"stopping {host.name}")
            power.stop(place, before, host.name)
        if now is None:
            _remove_tree(place.host_directory(host.name))
    if before and before.wire != state.wire:
        wire.release(place.pin, timeout=MACHINE_S)


def _start_missing(place: Store, state: LabState, plan: Plan, show: Progress) -> LabState:
    """Start all hosts that are off, at the same time, and write each down as soon as it has a first process."""
    missing = [plan.host(host.name) for host in state.hosts if host.process is None]
    problems: list[Problem] = []
    if missing:
        show.step(f"starting {', '.join(host.name for host in missing)}")
        # A thread each only waits for the launcher, which is a process of its own.
        with ThreadPoolExecutor(max_workers=min(len(missing), _MOST_AT_ONCE)) as pool:
            waiting = {pool.submit(power.start, place, state, plan, host): host for host in missing}
            for done in as_completed(waiting):
                try:
                    state = state.with_process(waiting[done].name, done.result())
                    place.write(state)
                except NotReady as error:
                    problems += error.problems
    for host in state.hosts:
        if host.process is not None:
            try:
                power.wait_ready(place, state, host.name, host.process, deadline_s=plan.timeouts.ready)
            except NotReady as error:
                problems += error.problems
    if problems:
        raise NotReady(*problems)
    return state


def _anything(place: Store) -> bool:
    return place.exists() or wire.is_pinned(place.pin) or any(d.exists() for d in _group_directories(place.lab, None))


def _readable(place: Store) -> LabState | None:
    # A record that cannot be read must not keep a lab from being removed: its name leads to everything but the
    # first processes, and those are in the lab's control groups.
    try:
        return place.read()
    except NotReady:
        return None


def _group_directories(lab: str, state: LabState | None) -> tuple[Path, ...]:
    now = cgroups.lab_directories(lab, cgroups.own_hierarchies())
    recorded = tuple(Path(directory) for directory in state.cgroups) if state else ()
    return tuple(dict.fromkeys((*recorded, *now)))


@contextmanager
def _held(files: Iterable[Path]) -> Iterator[frozenset[int]]:
    """Keep namespaces open, and give their inodes: the kernel uses the number of a closed one for the next new one."""
    with ExitStack() as stack:
        inodes = set()
        for file in files:
            with suppress(OSError):  # its process has just ended
                opened = stack.enter_context(file.open("rb"))
                inodes.add(os.fstat(opened.fileno()).st_ino)
        yield frozenset(inodes)


def _wait_unused(lab: str, inodes: frozenset[int]) -> None:
    def probe() -> NotYet | bool:
        users = using_namespace("net", inodes)
        names = ", ".join(f"{pid} ({command_of(pid)})" for pid in users)
        return NotYet(f"still used by {names}") if users else True

    hint = "these processes were not started by the lab: end them, then run `./lab down` again"
    until(probe, deadline_s=MACHINE_S, what="the end of its network namespaces", where=f"lab {lab}", hint=hint)


def _remove_files(place: Store) -> None:
    _remove_tree(place.directory / "hosts")
    for pattern in ("secret", "*.new", "state.json"):  # the record last: until then it can all be done again
        for path in place.directory.glob(pattern):
            path.unlink()


def _remove_tree(path: Path) -> None:
    def failed(
        _function: Callable[..., object], name: str, error: tuple[type[BaseException], BaseException, object]
    ) -> None:
        raise NotReady(
            Problem(name, f"it could not be removed: {error[1]}", "remove it by hand, then run `./lab down`")
        )

    if path.exists():
        shutil.rmtree(path, onerror=failed)
