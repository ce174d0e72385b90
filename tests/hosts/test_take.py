"""Taking another plan: on record first, then told; refused before anything is touched where hosts must start anew."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.hosts.recorded import CHECKOUT, IMAGE, record
from tests.plans import shop
from underlay import process
from underlay.cli.main import main
from underlay.errors import Exit, NotReady
from underlay.hosts import provisioning
from underlay.hosts.namespace import labs, power, wire
from underlay.hosts.namespace.labs import find_lab
from underlay.hosts.namespace.state import DIRECTORY_VARIABLE, Store
from underlay.hosts.vagrant import handover
from underlay.hosts.vagrant import labs as vagrant
from underlay.process import Completed, ProgramFailed
from underlay.topology import Plan, Timeouts, parse_plan, render_plan

TEXT = shop.text()
PLAN = parse_plan(TEXT, "plan")
MOVED = parse_plan(TEXT.replace("192.168.56.11", "192.168.56.13").replace("port: 8080", "port: 8081"), "moved")
EDITED = parse_plan(TEXT.replace("port: 8080", "port: 8081").replace("memory: 1024", "memory: 1536"), "edited")
PUBLISHED = parse_plan(TEXT.replace("port: 8080", "port: 8081"), "published")


def files(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file() and path.name != "lock"}


def test_a_lab_takes_an_edited_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    lab = record(tmp_path, PLAN)
    assert lab.obstacle(EDITED) is None
    assert lab.take(EDITED).recorded == EDITED
    found = find_lab(PLAN.lab)
    assert found is not None
    assert found.recorded == EDITED, "a host that is off starts with what is on record"


def test_what_hosts_are_started_with_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    lab = record(tmp_path, PLAN)
    before = files(tmp_path)
    with pytest.raises(NotReady, match=r"start anew for what the plan changes: hosts\.host1\.address\n.*: \./lab up$"):
        lab.take(MOVED)
    assert files(tmp_path) == before


def test_nothing_is_taken_while_another_command_changes_the_lab(tmp_path: Path) -> None:
    lab = record(tmp_path, PLAN)
    with lab.store.locked(), pytest.raises(NotReady, match="is changing it"):
        lab.take(EDITED)
    assert lab.store.read() == record(tmp_path / "other", PLAN).store.read()


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> vagrant.VagrantLab:
    """Virtual machines of a hypervisor that has gone, so all of them are off."""
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path / "dot"))
    monkeypatch.setattr(vagrant, "handover_directory", lambda: tmp_path / "handover")
    handover.prepare(vagrant.own_directory(), tmp_path / "handover", PLAN)
    known = MappingProxyType({host.name: "0000" for host in PLAN.hosts})
    return vagrant.VagrantLab(PLAN.patient(handover.EMULATED), PLAN, "libvirt", known, tmp_path / "ssh-config")


@pytest.mark.parametrize("plan", [MOVED, EDITED], ids=["moved", "more memory"])
def test_virtual_machines_are_reloaded_for_what_they_are_made_with(
    plan: Plan, machines: vagrant.VagrantLab, tmp_path: Path
) -> None:
    before = files(tmp_path)
    with pytest.raises(NotReady, match=r"must start anew .*\n.*: \./lab vagrant reload --provision$"):
        machines.take(plan)
    assert files(tmp_path) == before


class Off:
    """A hypervisor whose machines are all off."""

    def running(self, machine: str) -> bool:
        return not machine


def test_a_virtual_machine_that_is_off_would_not_hear_of_it(
    machines: vagrant.VagrantLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vagrant, "hypervisors", lambda directory: {"libvirt": Off()})
    before = files(tmp_path)
    with pytest.raises(NotReady, match=r"host1, host2 is off .*\n.*: \./lab vagrant up$"):
        machines.take(PUBLISHED)
    assert files(tmp_path) == before


@dataclass(frozen=True)
class Running:
    """As much of a hypervisor as is asked: it runs what is known to it."""

    known: frozenset[str]

    def running(self, machine: str) -> bool:
        return machine in self.known


@pytest.mark.parametrize("verb", [["vm", "prepare"], ["vm", "prepare", "--anew"]], ids=["up", "reload"])
@pytest.mark.parametrize("machine", ["0000", "1111"], ids=["runs", "off"])
def test_vagrant_does_not_hand_over_what_only_a_start_gives(
    verb: list[str], machine: str, machines: vagrant.VagrantLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for host in PLAN.hosts:
        file = vagrant.dot_directory() / "machines" / host.name / "libvirt" / "id"
        file.parent.mkdir(parents=True)
        file.write_text(machine)
    monkeypatch.setattr(vagrant, "hypervisors", lambda _: {"libvirt": Running(frozenset({"0000"}))})
    plan = tmp_path / "moved.yaml"
    plan.write_text(render_plan(MOVED))
    before = files(tmp_path)
    code = main(["--plan", str(plan), *verb])
    if verb[-1] == "prepare" and machine == "0000":
        assert code == int(Exit.NOT_READY)
        assert files(tmp_path) == before
    else:
        assert code == int(Exit.GOOD)
        assert {path.read_text() for path in tmp_path.rglob("topology.yaml")} == {render_plan(MOVED)}


def test_what_is_handed_over_the_next_time_is_the_plan_on_record(machines: vagrant.VagrantLab, tmp_path: Path) -> None:
    text = render_plan(PUBLISHED)
    handover.replan(vagrant.own_directory(), tmp_path / "handover", text)
    copies = list(tmp_path.rglob("topology.yaml"))
    assert len(copies) == 1 + len(PLAN.hosts)
    assert {path.read_text() for path in copies} == {text}


@dataclass(frozen=True)
class Here:
    """This machine as a host; ``cut`` is how many characters of what it is sent arrive."""

    name: str = "here"
    cut: int | None = None

    timeouts = Timeouts(connect=1, command=5, ready=5, cache=1)

    @property
    def address(self) -> IPv4Address:
        return IPv4Address("127.0.0.1")

    def argv(self, command: Sequence[str], *, namespace: str | None = None, tty: bool = False) -> tuple[str, ...]:
        return tuple(command)

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float | None = None,
        check: bool = True,
        stdin: str | None = None,
        namespace: str | None = None,
    ) -> Completed:
        return process.run(command, timeout=timeout or 20, check=check, stdin=(stdin or "")[: self.cut])

    def running(self) -> bool:
        return True

    def power_off(self) -> None: ...

    def power_on(self) -> None: ...

    def facts(self) -> dict[str, str]:
        return {}


@dataclass(frozen=True)
class Told:
    """The two files that hosts are told."""

    plan: Path
    secret: Path


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    """Have hosts keep them here."""
    files = Told(tmp_path / "topology.yaml", tmp_path / "secret")
    monkeypatch.setattr(provisioning, "PLAN_FILE", str(files.plan))
    monkeypatch.setattr(provisioning, "SECRET_FILE", str(files.secret))
    return files


def test_a_host_takes_plan_and_secret_in_whole_or_not_at_all(told: Told, tmp_path: Path) -> None:
    provisioning.tell([Here()], render_plan(PLAN), "the first\n")
    assert (told.plan.read_text(), told.secret.read_text()) == (render_plan(PLAN), "the first")
    assert told.secret.stat().st_mode & 0o777 == 0o600
    for cut in (0, 100):  # the connection broke
        with pytest.raises(ProgramFailed):
            provisioning.tell([Here(cut=cut)], render_plan(EDITED), "the second")
        assert (told.plan.read_text(), told.secret.read_text()) == (render_plan(PLAN), "the first")
    provisioning.tell([Here()], render_plan(EDITED), "the second")
    assert (told.plan.read_text(), told.secret.read_text()) == (render_plan(EDITED), "the second")
    assert set(tmp_path.iterdir()) == {told.plan, told.secret}


def test_what_is_told_is_on_the_disk_before_it_has_its_name_and_its_name_after(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut leaves an empty plan, or gives the old one back."""
    log, programs = tmp_path / "log", tmp_path / "programs"
    programs.mkdir()
    for name in ("sync", "mv"):
        program = programs / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >>{log}\nexec {shutil.which(name)} "$@"\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    provisioning.tell([Here()], render_plan(PLAN), "the lab's own")
    assert log.read_text().splitlines() == [
        f"sync {told.plan}.new {told.secret}.new",
        f"mv {told.secret}.new {told.secret}",
        f"mv {told.plan}.new {told.plan}",
        f"sync {tmp_path}",
    ]
    assert told.plan.read_text() == render_plan(PLAN)


def test_up_tells_the_hosts_that_it_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that are on for which this process stands; what needs root is left out."""
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    record(tmp_path, PLAN, on=[host.name for host in PLAN.hosts])
    monkeypatch.setattr(labs, "preflight", list)
    monkeypatch.setattr(wire, "ensure", lambda *_, **__: None)
    monkeypatch.setattr(power, "wait_ready", lambda *_, **__: None)
    told: dict[str, tuple[str, str]] = {}
    monkeypatch.setattr(labs, "tell", lambda hosts, *texts: told.update({host.name: texts for host in hosts}))
    assert labs.up(EDITED, IMAGE, CHECKOUT).recorded == EDITED
    secret = Store(tmp_path / "labs" / PLAN.lab).secret()
    assert told == {host.name: (render_plan(EDITED), secret) for host in PLAN.hosts}
