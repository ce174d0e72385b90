"""Phase 1 of the tests' plan: its resources in order, and the script that says the same.

The files in golden/ are written anew with UNDERLAY_GOLDEN=write in the environment; read the difference before
committing it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provision import secrets
from provision.explain import explain
from provision.resource import Feed, Phase, Write
from tests.plans import shop
from tests.provision.plans import PHASE1, as_on_a_host, phases, split
from tests.topology.golden import compare
from underlay.process import run
from underlay.topology import Plan

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return shop.plan()


def script(phase: Phase, host: str) -> str:
    return as_on_a_host(explain(phase, host))


def listing(phase: Phase) -> str:
    lines = []
    for section in phase.sections:
        lines += [section.title, *(f"    {item.identity}" for item in section.resources)]
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("host", ["host1", "host2"])
def test_resources_of_a_plan_on_one_host(plan: Plan, host: str) -> None:
    compare(GOLDEN / f"resources-{host}.txt", listing(phases(plan)[host]))


@pytest.mark.parametrize("host", ["host1", "host2"])
def test_script_of_a_plan_on_one_host(plan: Plan, host: str) -> None:
    compare(GOLDEN / f"explain-{host}.sh", script(phases(plan)[host], host))


@pytest.mark.parametrize("host", ["host1", "host2"])
def test_resources_of_a_plan_on_two_hosts(host: str) -> None:
    compare(GOLDEN / f"resources-split-{host}.txt", listing(phases(split())[host]))


@pytest.mark.parametrize("host", ["host1", "host2"])
def test_script_is_a_shell_script(host: str) -> None:
    done = run(("sh", "-n"), stdin=script(phases(split())[host], host), timeout=10)
    assert done.stderr == ""


def test_host_without_services_has_nothing_to_do(plan: Plan) -> None:
    phase = phases(plan)["host2"]
    assert phase.resources == ()
    assert phase.mark == PHASE1


def test_script_holds_no_password(plan: Plan, tmp_path: Path) -> None:
    text = script(phases(plan)["host1"], "host1")
    (tmp_path / "secret").write_text("the lab's own")
    for role in ("product", "order"):
        assert secrets.password(tmp_path / "secret", role) not in text
        assert f"provision secret {role} " in text
    # What the services and psql are told is where the password is, never what it is.
    assert set(re.findall(r"\w*PASSWORD\w*=", text)) == {"DATABASE_PASSWORD_FILE="}
    assert set(re.findall(r"PASSWORD (\S+)", text)) == {":'password';"}
    files = [item for item in phases(plan)["host1"].resources if "/secrets/" in item.identity]
    assert len(files) == 2
    for item in files:
        assert not any(isinstance(step, Write | Feed) for step in item.say(PHASE1))


def test_two_servers_on_one_host_hold_two_databases() -> None:
    plan = shop.plan(
        (
            "port: 5432, first: 60}",
            "port: 5432, first: 60}\n  archive: {tier: data, host: host1, program: postgres, port: 5432}",
        )
    )
    found = [item.identity for item in phases(plan)["host1"].resources if item.identity.startswith("database ")]
    assert len(found) == 2
