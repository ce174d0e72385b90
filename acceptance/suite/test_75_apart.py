"""Services are apart on the host, too: each has a user of its own, and none reads another's secret or memory.

Without that the flow matrix has a way around it: a process of the same user may trace its neighbour and speak in its
name (ptrace(2), "Ptrace access mode checking").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from acceptance.modules import LabHost
from acceptance.suite.stage import WITH_PASSWORD, Seat, Stage


@dataclass(frozen=True, slots=True)
class Apart:
    """What is there on one host, and what of it each user can read.

    ``processes`` has, by replica, the user of each process; ``rights`` what the kernel says that a process may do;
    ``files`` the owner of each private file. ``writable`` has what each user may write, and under -1 what all may.
    """

    processes: Mapping[str, Mapping[str, int]]
    rights: Mapping[str, Mapping[str, str]]
    files: Mapping[str, int]
    readable: Mapping[str, frozenset[str]]
    writable: Mapping[str, frozenset[str]]

    def user_of(self, seat: Seat) -> int:
        """Return the user that a replica runs as."""
        users = set(self.processes[seat.name].values())
        assert len(users) == 1, f"{seat.replica.name}: expected: one user; seen: {users}"
        return users.pop()


@pytest.fixture(scope="module")
def apart(stage: Stage) -> Mapping[str, Apart]:
    """Try everything as every user, in one run a host."""
    found = {}
    for name, here in stage.by_host().items():
        spaces = json.dumps({seat.name: seat.space for seat in here})
        data = json.loads(stage.lab.hosts[name].run(["python3", "-m", "acceptance.apart"], stdin=spaces).stdout)
        readable, writable = (
            {number: frozenset(paths) for number, paths in data[key].items()} for key in ("readable", "writable")
        )
        found[name] = Apart(data["processes"], data["rights"], data["files"], readable, writable)
    return found


def test_each_service_has_a_user_of_its_own(apart: Mapping[str, Apart], stage: Stage, seat: Seat) -> None:
    here = apart[seat.host]
    user = here.user_of(seat)
    assert user != 0, f"{seat.replica.name}: expected: not root; seen: root"
    others = {
        other.name
        for other in stage.seats(seat.host)
        if other.service != seat.service and user in here.processes[other.name].values()
    }
    assert not others, f"{seat.replica.name}: expected: its user is its own; seen: user {user} runs {others} too"


def test_service_runs_as_the_planned_user(apart: Mapping[str, Apart], stage: Stage, seat: Seat) -> None:
    wanted = stage.uid(seat)
    seen = apart[seat.host].user_of(seat)
    assert seen == wanted, f"{seat.host}/{seat.name}: expected: {stage.user(seat)}, {wanted}; seen: {seen}"


def test_user_of_a_service_cannot_log_in(stage: Stage, seat: Seat) -> None:
    user = LabHost(stage.machine(seat), stage.plan).user(stage.user(seat))
    if user.name.isdecimal():
        named = LabHost(stage.machine(seat), stage.plan).run("getent passwd %s", user.name).stdout
        assert not named, f"{seat.host}: expected: nobody has the number {user.name} of an image's user; seen: {named}"
        return
    seen = (user.shell, user.home, user.password[:1])
    wanted = ("/usr/sbin/nologin", "/nonexistent", "!")
    assert seen == wanted, f"{seat.host}: {user.name}: expected: shell, home and password {wanted}; seen: {seen}"


def test_rooms_are_closed_to_all_others(stage: Stage) -> None:
    """Whoever cannot enter cannot knock at the sockets in there either."""
    looked = 0
    for seat in stage.seats():
        host = LabHost(stage.machine(seat), stage.plan)
        for path in sorted(stage.room(seat)):
            directory = host.file(path)
            if directory.exists:
                looked += 1
                seen, wanted = (directory.mode & 0o077, directory.uid), (0, stage.uid(seat))
                assert seen == wanted, f"{seat.host}: {path}: expected: for {wanted[1]} alone; seen: {seen}"
    if not any(stage.room(seat) for seat in stage.seats()):
        pytest.skip("in this phase replicas write nowhere on the host")
    assert looked, "expected: a replica with a directory of its own; seen: none"


#: Directories that are everybody's on any Linux, where nobody may touch what is another's (hier(7), the sticky bit).
_EVERYBODYS = frozenset({"/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock"})


def test_service_writes_where_it_has_to_and_nowhere_else(apart: Mapping[str, Apart], stage: Stage, seat: Seat) -> None:
    here = apart[seat.host]
    of_its_service = [other for other in stage.seats(seat.host) if other.service == seat.service]
    rooms = {room for other in of_its_service for room in stage.room(other)}
    seen = here.writable[str(here.user_of(seat))]
    assert seen <= rooms, (
        f"{seat.host}/{seat.name}: expected: it may write {sorted(rooms)}; besides: {sorted(seen - rooms)}"
    )
    if rooms:
        assert any(here.writable.values()), f"{seat.host}: expected: somebody may write somewhere; seen: nobody"
    others = here.writable["-1"] - _EVERYBODYS
    assert not others, f"{seat.host}: expected: nothing that all may write; seen: {sorted(others)}"


def test_service_has_no_privilege_and_can_win_none(apart: Mapping[str, Apart], seat: Seat) -> None:
    """Neither by a file with capabilities or of root's, nor by a group that it was started with."""
    here = apart[seat.host]
    for pid in here.processes[seat.name]:
        rights = here.rights[pid]
        caps = {name: value for name, value in rights.items() if name.startswith("Cap") and int(value, 16)}
        assert not caps, f"{seat.replica.name}: expected: process {pid} has no capability; seen: {caps}"
        seen = rights["NoNewPrivs"]
        assert seen == "1", f"{seat.replica.name}: expected: process {pid} has NoNewPrivs 1; seen: {seen}"
        groups = {*rights["Gid"].split(), *rights["Groups"].split()}
        assert len(groups) == 1, f"{seat.replica.name}: expected: process {pid} has one group, its own; seen: {groups}"
        assert "0" not in groups, f"{seat.replica.name}: expected: process {pid} is not in root's group; seen: {groups}"


def test_service_reads_its_own_secret_and_no_other(apart: Mapping[str, Apart], seat: Seat) -> None:
    here = apart[seat.host]
    user = here.user_of(seat)
    own = {path for path, owner in here.files.items() if owner == user}
    seen = here.readable[str(user)] & here.files.keys()
    assert seen == own, f"{seat.replica.name}: expected: it reads its own files alone; seen besides: {seen - own}"
    if seat.service.program in WITH_PASSWORD:
        assert own, f"{seat.replica.name}: expected: it has a password of its own; seen: no private file"
    assert 0 in here.files.values(), f"{seat.host}: expected: the lab's secret is root's alone; seen: no such file"


def test_service_reads_its_own_memory_and_no_other(apart: Mapping[str, Apart], seat: Seat) -> None:
    here = apart[seat.host]
    user = here.user_of(seat)
    seen = {path.split("/")[2] for path in here.readable[str(user)] if path.startswith("/proc/")}
    own = {pid for each in here.processes.values() for pid, owner in each.items() if owner == user}
    assert seen <= own, f"{seat.replica.name}: expected: no other service's memory; seen: processes {seen - own}"
    assert seen, f"{seat.replica.name}: expected: it can look at itself, or nothing is proved; seen: it cannot"
