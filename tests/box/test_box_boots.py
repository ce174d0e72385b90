"""Boots the finished boxes. It takes minutes and root, so it is asked for by name:

    UNDERLAY_BOOT_BOX=virtualbox pytest tests/box/test_box_boots.py -s

VirtualBox itself is not needed: QEMU boots the very VMDK of the box, on the controller that the box's OVF describes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from underlay.box.build import find_box
from underlay.box.guest import find_vagrant_key
from underlay.box.store import Provider
from underlay.image.isolate import secluded
from underlay.process import run
from underlay.repository import REPOSITORY

_ASKED = os.environ.get("UNDERLAY_BOOT_BOX", "")
_DISKS = {Provider.LIBVIRT: ("box.img", "qcow2"), Provider.VIRTUALBOX: ("box-disk001.vmdk", "vmdk")}
_TIMEOUT = 1800.0


@pytest.mark.skipif(not _ASKED, reason="takes minutes; UNDERLAY_BOOT_BOX=libvirt,virtualbox boots the boxes")
@pytest.mark.parametrize("provider", list(Provider))
def test_the_disk_of_the_box_boots(provider: Provider, tmp_path: Path) -> None:
    if provider not in _ASKED.split(","):
        pytest.skip(f"not asked for: UNDERLAY_BOOT_BOX={_ASKED}")
    box = find_box(provider)
    assert box is not None, f"it is not built: ./lab image box --provider {provider}"
    name, form = _DISKS[provider]
    run(("tar", "--extract", "--file", str(box.file), "--directory", str(tmp_path), name), timeout=_TIMEOUT)
    public = find_vagrant_key()
    assert public is not None
    place = tmp_path / "place"
    place.mkdir()
    program = (sys.executable, str(Path(__file__).parent / "boot_box.py"), str(tmp_path / name), form)
    command = secluded(("unshare", "--net", "--", *program, str(public.with_suffix("")), str(place)))
    done = run(command, timeout=_TIMEOUT, check=False, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    serial = place / "serial"
    tail = serial.read_text(errors="replace")[-2000:] if serial.exists() else "nothing"
    assert done.ok, f"{done.stderr}\nthe serial console ends with: {tail}"
    said = json.loads(done.stdout)
    sys.stdout.write(f"\n{json.dumps(said, indent=2)}\n")
    assert said["state"] == "running"
    assert said["failed"] == ""
    assert said["active"].split() == ["active"] * 4
    assert said["python"] == "/opt/underlay"
    assert said["sudo"] == "0"
    assert said["docker"] == "overlay2"
    assert {"eth0", "lo"} <= set(said["interfaces"].split())
    assert "ext4" in said["root"]
    assert said["rsync"].startswith("rsync")
    assert "nameserver" in said["resolver"]
