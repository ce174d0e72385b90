"""The Vagrantfile, as Vagrant itself reads it. Nothing is made, and no hypervisor is asked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from underlay.process import run

ROOT = Path(__file__).parents[1]
#: Vagrant starts in seconds; on a busy machine in many.
_TIMEOUT = 120.0

pytestmark = pytest.mark.skipif(shutil.which("vagrant") is None, reason="vagrant is not installed")


@pytest.mark.parametrize(
    ("provider", "options"),
    [
        ("libvirt", ()),
        # Without VirtualBox, Vagrant validates all but what its provider would look up.
        ("virtualbox", () if shutil.which("VBoxManage") else ("--ignore-provider",)),
    ],
)
def test_vagrant_finds_it_valid(provider: str, options: tuple[str, ...], tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "VAGRANT_CWD": str(ROOT),
        "VAGRANT_HOME": str(tmp_path / "home"),
        "VAGRANT_DOTFILE_PATH": str(tmp_path / "dot"),
        "VAGRANT_DEFAULT_PROVIDER": provider,
    }
    done = run(("vagrant", "validate", *options), timeout=_TIMEOUT, check=False, env=environment)
    assert done.ok, done.stdout + done.stderr
    assert "validated successfully" in done.stdout
