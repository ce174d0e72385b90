from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from underlay import machine
from underlay.errors import NotReady
from underlay.progress import Quiet
from underlay.topology import load_plan

ROOT = Path(__file__).parents[1]
# As a host on a little-endian machine shows it: proc_net(5). Default, 10.77.0.0/16, 172.17.0.0/16 and one address.
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t00004D0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t0102000A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
"""


def test_routes_are_read_without_the_default_route() -> None:
    assert list(machine.routes(ROUTES)) == [
        IPv4Network("10.77.0.0/16"),
        IPv4Network("172.17.0.0/16"),
        IPv4Network("10.0.2.1/32"),
    ]


def test_collision_with_a_route_of_this_machine_is_noted() -> None:
    plan = load_plan(ROOT / "topology.yaml")
    own = next(machine.routes(Path("/proc/net/route").read_text()), None)
    if own is None:
        pytest.skip("this machine has no route that a plan could collide with")
    tier = replace(plan.tiers[0], name="taken", subnet=own)
    (note,) = [note for note in machine.collisions(replace(plan, tiers=(tier,))) if "taken" in note]
    assert note == f"tier taken ({own}) overlaps a route of this machine ({own})"


def test_machine_without_routes() -> None:
    assert list(machine.routes("Iface\tDestination\n")) == []
    assert list(machine.routes("")) == []


def test_needs_say_their_package_and_why() -> None:
    assert all(need.program and need.package and need.why for need in machine.NEEDS)
    assert len({need.program for need in machine.NEEDS}) == len(machine.NEEDS)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search path on which there is nothing but what a test puts there; the usual places are looked at as well."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_missing_program_is_noticed_and_one_on_the_path_is_found(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "NEEDS", (machine.Need("frobnicate", "frob-tools", "frobs"),))
    assert "frob-tools" in {need.package for need in machine.missing()}
    program = bare / "frobnicate"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert "frob-tools" not in {need.package for need in machine.missing()}


@pytest.mark.usefixtures("bare")
def test_without_apt_it_says_what_is_missing_why_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = (machine.Need("frobnicate", "frob-tools", "frobs"), machine.Need("twiddle", "twiddlers", "twiddles"))
    monkeypatch.setattr(machine, "NEEDS", needs)
    said: list[str] = []
    with pytest.raises(NotReady) as caught:
        machine.install_missing(Quiet(), said.append)
    whats = [problem.what for problem in caught.value.problems]
    assert "frob-tools is not installed: it frobs" in whats
    assert "twiddlers is not installed: it twiddles" in whats
    assert all("package manager" in problem.hint for problem in caught.value.problems)
    assert said == []


@pytest.mark.usefixtures("bare")
def test_nothing_is_installed_where_nothing_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "NEEDS", ())
    monkeypatch.setattr(machine, "_KEYRING_FILE", tmp_path)
    said: list[str] = []
    machine.install_missing(Quiet(), said.append)
    assert said == []
