"""Finding a lab of virtual machines, and what its machines are given: without any machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from provision.host.receive import receive
from tests.plans import shop
from underlay.errors import NotReady
from underlay.hosts.namespace.processes import Process
from underlay.hosts.vagrant import environment as vmenv
from underlay.hosts.vagrant import handover, ssh
from underlay.hosts.vagrant import labs as vagrant
from underlay.hosts.vagrant.sockets import all_socket_directories, socket_directory
from underlay.topology import Plan, load_plan


@pytest.fixture(scope="module")
def plan() -> Plan:
    return shop.plan()


@pytest.fixture
def dot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path))
    return tmp_path


def record(dot: Path, host: str, provider: str, identity: str) -> None:
    file = dot / "machines" / host / provider / "id"
    file.parent.mkdir(parents=True)
    file.write_text(identity)


def test_no_lab_where_vagrant_made_nothing(dot: Path, plan: Plan) -> None:
    assert vagrant.find_lab(plan.lab) is None
    handover.prepare(vagrant.own_directory(), dot / "handover", plan)
    assert vagrant.find_lab(plan.lab) is None


def test_no_lab_of_another_name(dot: Path, plan: Plan) -> None:
    handover.prepare(vagrant.own_directory(), dot / "handover", plan)
    for host in plan.hosts:
        record(dot, host.name, "libvirt", "0000")
    assert vagrant.find_lab("another") is None


def test_no_lab_where_what_ran_it_has_gone(dot: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    handover.prepare(vagrant.own_directory(), dot / "handover", plan)
    for host in plan.hosts:
        record(dot, host.name, "libvirt", "0000")
    monkeypatch.setenv("PATH", str(dot))  # no virsh
    assert vagrant.find_lab(plan.lab) is None


def why(name: str) -> str:
    problem = vagrant.why_not(name)
    assert problem is not None
    return str(problem)


def test_why_there_is_no_lab_is_said(dot: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no virtual machine was made from this checkout" in why(plan.lab)
    handover.prepare(vagrant.own_directory(), dot / "handover", plan)
    assert f"are of lab {plan.lab}" in why("another")
    first, *others = [host.name for host in plan.hosts]
    record(dot, first, "libvirt", "0000")
    assert f"{', '.join(others)} was not made" in why(plan.lab)
    for name in others:
        record(dot, name, "elsewhere", "0000")
    assert "different providers: elsewhere, libvirt" in why(plan.lab)


def test_why_there_is_no_lab_without_its_libvirt(dot: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    handover.prepare(vagrant.own_directory(), dot / "handover", plan)
    for host in plan.hosts:
        record(dot, host.name, "libvirt", "0000")
    monkeypatch.setattr(vmenv, "is_up", lambda: False)
    monkeypatch.setenv(vmenv.URI_VARIABLE, "qemu+unix:///system?socket=/nowhere")
    expected = "it does not answer at qemu+unix:///system?socket=/nowhere" if shutil.which("virsh") else "virsh"
    assert expected in why(plan.lab)


def test_connections_are_forgotten(dot: Path, plan: Plan) -> None:
    vagrant.forget_connections()  # there are none
    config = vagrant.own_directory() / "ssh-config"
    config.parent.mkdir()
    machines = {"host1": str(dot)}
    sockets = socket_directory(machines)
    config.write_text(ssh.config("", machines=machines, sockets=sockets, connect_s=1))
    sockets.mkdir()
    assert sockets in all_socket_directories()
    vagrant.forget_connections()
    assert not config.exists()
    assert not sockets.exists()


def test_recorded_machines(dot: Path) -> None:
    record(dot, "host1", "libvirt", "6f1c\n")
    record(dot, "host2", "libvirt", "")  # being made
    assert vagrant.recorded(dot, ["host1", "host2", "host3"]) == {"host1": ("libvirt", "6f1c")}


def test_sockets_of_other_machines_lie_elsewhere() -> None:
    one = socket_directory({"host1": "a", "host2": "b"})
    assert one == socket_directory({"host2": "b", "host1": "a"})
    assert one != socket_directory({"host1": "a", "host2": "c"})
    assert len(str(one / ("h" * 40))) < 100  # unix(7) has room for 107


def test_hosts_are_given_what_they_need(tmp_path: Path, plan: Plan) -> None:
    directory = tmp_path / "handover"
    handover.prepare(tmp_path / "own", directory, plan)
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
    assert directory.stat().st_mode & 0o777 == 0o700
    secrets = set()
    for host in plan.hosts:
        own = directory / host.name
        assert load_plan(own / "topology.yaml") == plan
        assert json.loads((own / "host.json").read_text()) == {
            "host": host.name,
            "lab": plan.lab,
            "kind": "vagrant",
        }
        assert all(f"{other.address.ip} " in (own / "hosts").read_text() for other in plan.hosts)
        assert (own / "secret").stat().st_mode & 0o777 == 0o600
        assert (own / "topology.yaml").stat().st_mode & 0o777 == 0o644
        secrets.add((own / "secret").read_text())
    assert len(secrets) == 1
    assert len(secrets.pop()) == 64


def test_emulated_hosts_are_told_to_be_patient(tmp_path: Path, plan: Plan) -> None:
    handover.prepare(tmp_path / "own", tmp_path / "handover", plan, emulated=True)
    told = json.loads((tmp_path / "handover" / plan.hosts[0].name / "host.json").read_text())
    assert told["patience"] == handover.EMULATED


def test_the_secret_stays_and_hosts_that_left_go(tmp_path: Path, plan: Plan) -> None:
    own, given = tmp_path / "own", tmp_path / "handover"
    handover.prepare(own, given, plan)
    before = (own / "secret").read_text()
    (given / "gone").mkdir()
    handover.prepare(own, given, plan)
    assert (own / "secret").read_text() == before
    assert sorted(path.name for path in given.iterdir()) == [host.name for host in plan.hosts]


def test_forgetting_twice(tmp_path: Path, plan: Plan) -> None:
    both = tmp_path / "own", tmp_path / "handover"
    handover.prepare(*both, plan)
    handover.forget(*both)
    handover.forget(*both)
    assert not any(path.exists() for path in both)


def test_a_host_receives_what_was_handed_over(tmp_path: Path, plan: Plan) -> None:
    given, there = tmp_path / "handover", tmp_path / "there"
    handover.prepare(tmp_path / "own", given, plan)
    source = given / plan.hosts[0].name
    there.mkdir()
    (there / "phase1").mkdir()  # files of a phase stay
    names = sorted(path.name for path in source.iterdir())
    assert receive(source, there) == names
    assert receive(source, there) == []
    for name in names:
        assert (there / name).read_bytes() == (source / name).read_bytes()
        assert (there / name).stat().st_mode == (source / name).stat().st_mode
    (there / "secret").chmod(0o644)
    assert receive(source, there) == ["secret"]
    assert sorted(path.name for path in there.iterdir()) == sorted([*names, "phase1"])
    with pytest.raises(FileNotFoundError):
        receive(given / "nobody", there)


def test_record_of_daemons_round_trips() -> None:
    known = vmenv.Record(Path("/s"), (Path("/run/libvirt"),), {"libvirtd": Process(7, 99, "boot")})
    assert vmenv.Record.from_json(known.to_json()) == known
    assert known.running() == ()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"state": 1, "made": [], "daemons": {"x": [1]}}'])
def test_a_damaged_record_is_said_to_be_one(text: str) -> None:
    with pytest.raises(NotReady, match="cannot be read"):
        vmenv.Record.from_json(text)


def test_nothing_is_entered_where_no_libvirt_of_ours_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmenv, "is_up", lambda: False)
    assert vmenv.inside(("vagrant", "up")) == ("vagrant", "up")
