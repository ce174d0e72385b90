"""Finding a lab of virtual machines, and what its machines are given: without any machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from underlay.errors import NotReady
from underlay.hosts import handover, vagrant, vmenv
from underlay.hosts.processes import Process
from underlay.topology import Plan, load_plan


@pytest.fixture(scope="module")
def plan() -> Plan:
    return load_plan(Path(__file__).parents[2] / "topology.yaml")


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
    handover.prepare(vagrant.own_directory(), plan)
    assert vagrant.find_lab(plan.lab) is None


def test_no_lab_of_another_name(dot: Path, plan: Plan) -> None:
    handover.prepare(vagrant.own_directory(), plan)
    for host in plan.hosts:
        record(dot, host.name, "libvirt", "0000")
    assert vagrant.find_lab("another") is None


def test_no_lab_where_what_ran_it_has_gone(dot: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    handover.prepare(vagrant.own_directory(), plan)
    for host in plan.hosts:
        record(dot, host.name, "libvirt", "0000")
    monkeypatch.setenv("PATH", str(dot))  # no virsh
    assert vagrant.find_lab(plan.lab) is None


def test_recorded_machines(dot: Path) -> None:
    record(dot, "host1", "libvirt", "6f1c\n")
    record(dot, "host2", "libvirt", "")  # being made
    assert vagrant.recorded(dot, ["host1", "host2", "host3"]) == {"host1": ("libvirt", "6f1c")}


def test_sockets_of_other_machines_lie_elsewhere() -> None:
    one = vagrant.socket_directory({"host1": "a", "host2": "b"})
    assert one == vagrant.socket_directory({"host2": "b", "host1": "a"})
    assert one != vagrant.socket_directory({"host1": "a", "host2": "c"})
    assert len(str(one / ("h" * 40))) < 100  # unix(7) has room for 107


def test_hosts_are_given_what_they_need(tmp_path: Path, plan: Plan) -> None:
    directory = tmp_path / "own"
    handover.prepare(directory, plan)
    assert directory.stat().st_mode & 0o777 == 0o700
    secrets = set()
    for host in plan.hosts:
        own = directory / "hosts" / host.name
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
    handover.prepare(tmp_path, plan, emulated=True)
    told = json.loads((tmp_path / "hosts" / plan.hosts[0].name / "host.json").read_text())
    assert told["patience"] == handover.EMULATED


def test_the_secret_stays_and_hosts_that_left_go(tmp_path: Path, plan: Plan) -> None:
    handover.prepare(tmp_path, plan)
    before = (tmp_path / "secret").read_text()
    (tmp_path / "hosts/gone").mkdir()
    handover.prepare(tmp_path, plan)
    assert (tmp_path / "secret").read_text() == before
    assert sorted(path.name for path in (tmp_path / "hosts").iterdir()) == [host.name for host in plan.hosts]


def test_forgetting_twice(tmp_path: Path, plan: Plan) -> None:
    handover.prepare(tmp_path / "own", plan)
    handover.forget(tmp_path / "own")
    handover.forget(tmp_path / "own")
    assert not (tmp_path / "own").exists()


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
