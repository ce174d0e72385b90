"""Secrets: each is in one file, for one user alone; and nowhere else on the host can it be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from acceptance.modules import LabHost
from acceptance.provisioning import command
from acceptance.suite.stage import WITH_PASSWORD, Seat, Stage


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets' files of one host, each with its mode and owner; and the places where one of them shows."""

    files: Mapping[str, tuple[int, str]]
    secrets: int
    looked_at: int
    leaks: tuple[str, ...]


@pytest.fixture(scope="module")
def secrets(stage: Stage) -> Mapping[str, Secrets]:
    """Look everywhere, in one run a host."""
    found = {}
    for name in stage.by_host():
        asked = json.dumps(stage.secrets)
        said = json.loads(stage.lab.hosts[name].run(["python3", "-m", "acceptance.leaks"], stdin=asked).stdout)
        files = {path: (mode, owner) for path, (mode, owner) in said["files"].items()}
        found[name] = Secrets(files, said["secrets"], said["looked_at"], tuple(said["leaks"]))
    return found


def test_secret_is_for_its_owner_alone(secrets: Mapping[str, Secrets], busy_host: str, stage: Stage) -> None:
    owners = stage.keepers(busy_host)
    here = secrets[busy_host].files
    assert here, f"{busy_host}: expected: files with secrets below {stage.secrets}; seen: none"
    for path, (mode, owner) in here.items():
        assert not mode & 0o177, f"{busy_host}: {path}: expected: mode 0600 or less; seen: {mode:04o}"
        assert owner in owners, f"{busy_host}: {path}: expected: of one of {sorted(owners)}; seen: of {owner}"


def test_service_has_its_secret(stage: Stage, database_user: Seat) -> None:
    host, user = LabHost(stage.machine(database_user), stage.plan), stage.uid(database_user)
    file = host.file(stage.secret(database_user))
    seen = (file.mode, file.uid)
    assert seen == (0o400, user), (
        f"{host.name}: {file.path}: expected: 0400 of {user}; seen: {seen[0]:04o} of {seen[1]}"
    )


def test_each_role_has_a_password_of_its_own(stage: Stage) -> None:
    words: dict[str, set[str]] = {}
    for seat in stage.seats():
        if seat.service.program in WITH_PASSWORD:
            file = LabHost(stage.machine(seat), stage.plan).file(stage.secret(seat))
            words.setdefault(seat.service.program.value, set()).add(file.content_string.strip())
    if len(words) < 2:
        pytest.skip("the plan has no two services with a password")
    assert all(len(known) == 1 for known in words.values()), f"expected: one a role; seen: {sorted(words)}"
    assert len(set.union(*words.values())) == len(words), f"expected: one for each of {sorted(words)}; seen: some alike"


def test_secret_shows_nowhere_else(secrets: Mapping[str, Secrets], busy_host: str) -> None:
    """Neither in command lines and environments, nor in settings, logs, what the supervisor knows, or dumps."""
    here = secrets[busy_host]
    assert here.secrets > 1, f"{busy_host}: expected: secrets to look for; seen: {here.secrets}"
    assert here.looked_at > len(here.files), f"{busy_host}: expected: places to look at; seen: {here.looked_at}"
    assert not here.leaks, f"{busy_host}: expected: no secret but in its own file; seen in: {here.leaks}"


def test_explanation_tells_no_secret(stage: Stage, secrets: Mapping[str, Secrets], busy_host: str) -> None:
    host = LabHost(stage.lab.hosts[busy_host], stage.plan)
    told = host.machine.run(command("explain", stage.phase)).stdout
    for path in secrets[busy_host].files:
        value = host.file(path).content_string.strip()
        assert value, f"{busy_host}: {path}: expected: a secret; seen: nothing"
        assert value not in told, f"{busy_host}: expected: the explanation does not tell {path}; seen: it does"


def test_service_leaves_no_memory_behind_when_it_crashes(stage: Stage, seat: Seat) -> None:
    """A core dump would have its password."""
    host = LabHost(stage.machine(seat), stage.plan)
    seen = {}
    for pid in host.namespace(seat.space).processes:
        limits = host.run("cat /proc/%s/limits", str(pid))
        if limits.succeeded:  # a health check has ended meanwhile
            seen[pid] = next(line for line in limits.stdout.splitlines() if "core" in line).split()[4:6]
    assert seen, f"{host.name}/{seat.name}: expected: a process; seen: none"
    wrong = {pid: limit for pid, limit in seen.items() if limit != ["0", "0"]}
    assert not wrong, f"{host.name}/{seat.name}: expected: no process dumps a core; seen: soft and hard limits {wrong}"
