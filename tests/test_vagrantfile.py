"""The Vagrantfile, as Vagrant itself reads it. Nothing is made, and no hypervisor is asked."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.plans import shop
from underlay.process import Completed, run
from underlay.topology import load_plan, plan_as_json

ROOT = Path(__file__).parents[1]
#: Vagrant starts in seconds; on a busy machine in many.
_TIMEOUT = 120.0

pytestmark = pytest.mark.skipif(shutil.which("vagrant") is None, reason="vagrant is not installed")


#: Ways to write the shipped plan: every one is valid for the command, so it is for Vagrant.
WRITTEN: Mapping[str, Callable[[str], str]] = {
    "as shipped": lambda text: text,
    "without memory": lambda text: re.sub(r", memory: \d+", "", text),
    "with an alias": lambda text: text.replace(
        "{address: 192.168.56.11, cpus: 2", "{address: 192.168.56.11, cpus: &two 2"
    ).replace("{address: 192.168.56.12, cpus: 2", "{address: 192.168.56.12, cpus: *two"),
}


#: Vagrant reads this beside the repository's own file.
_TELL = 'at_exit { $stderr.puts "plan: #{JSON.generate(Underlay::PLAN)}" }'


def validate(provider: str, options: tuple[str, ...], place: Path, plan: str, cwd: Path) -> Completed:
    environment = {
        **os.environ,
        "VAGRANT_CWD": str(ROOT),
        "VAGRANT_HOME": str(place / "home"),
        "VAGRANT_DOTFILE_PATH": str(place / "dot"),
        "VAGRANT_DEFAULT_PROVIDER": provider,
        "UNDERLAY_PLAN": plan,
    }
    return run(("vagrant", "validate", *options), timeout=_TIMEOUT, check=False, env=environment, cwd=cwd)


@pytest.mark.parametrize(
    ("provider", "options"),
    [
        ("libvirt", ()),
        # Without VirtualBox, Vagrant validates all but what its provider would look up.
        ("virtualbox", () if shutil.which("VBoxManage") else ("--ignore-provider",)),
    ],
)
def test_vagrant_finds_it_valid(provider: str, options: tuple[str, ...], tmp_path: Path) -> None:
    done = validate(provider, options, tmp_path, "", tmp_path)
    assert done.ok, done.stdout + done.stderr
    assert "validated successfully" in done.stdout


@pytest.mark.parametrize("how", WRITTEN)
def test_a_plan_is_valid_however_it_is_written(how: str, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(WRITTEN[how](shop.text()))
    # A relative name is that of a file where the person is.
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "Vagrantfile").write_text(_TELL)
    done = validate("virtualbox", ("--ignore-provider",), tmp_path, "plan.yaml", tmp_path)
    assert done.ok, done.stdout + done.stderr
    assert "validated successfully" in done.stdout
    told = json.loads(done.stderr.partition("plan: ")[2].partition("\n")[0])
    assert told == plan_as_json(load_plan(tmp_path / "plan.yaml"))


def test_a_plan_with_a_mistake_is_told_as_the_command_tells_it(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("lab: Under Lay\n")
    done = validate("virtualbox", ("--ignore-provider",), tmp_path, str(plan), tmp_path)
    assert not done.ok
    assert f"error: {plan}:1: " in done.stderr
    assert "NoMethodError" not in done.stderr
