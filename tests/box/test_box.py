from __future__ import annotations

import json
import shutil
import struct
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from underlay import needs
from underlay.box import build as boxes
from underlay.box import disk, guest
from underlay.box.build import box_key, box_version, catalogue_text, clean_boxes, find_box, metadata_text, pack
from underlay.box.ovf import ovf_text
from underlay.box.store import BOXES, Box, BoxStore, Manifest, Provider, box_file
from underlay.errors import NotReady
from underlay.image import recipe
from underlay.image.store import ImageStore, Workplace
from underlay.image.store import Manifest as ImageManifest
from underlay.repository import REPOSITORY

_OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
_RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"


def _manifest(key: str = "bbbb", image: str = "aaaa", provider: Provider = Provider.LIBVIRT) -> Manifest:
    return Manifest(
        provider=provider,
        key=key,
        image_key=image,
        image_sha256="00ff",
        version="20260102.5.0",
        sha256="1234",
        size_bytes=3,
        build_seconds=1.5,
        created="2026-01-02T00:00:05+00:00",
    )


def _publish(cache: Path, manifest: Manifest) -> Box:
    store = BoxStore(cache)
    with store.workplace("bbbb") as place:
        box_file(place).write_text("abc")
        return store.add(place, manifest, "{}")


def _publish_image(cache: Path, key: str, sha256: str) -> None:
    store = ImageStore(cache)
    with store.locked(pytest.fail), store.workplace(key) as place:
        Workplace(place).rootfs.mkdir()
        Workplace(place).write("", "")
        store.publish(place, key, ImageManifest(key, sha256, "trixie", "amd64", 1, 3, 1.5, "2026-01-02T03:04:05+00:00"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    for path in ("underlay/image", "underlay/box", "requirements"):
        shutil.copytree(REPOSITORY / path, root / path, ignore=shutil.ignore_patterns("__pycache__"))
    return root


# The disk


def test_the_first_sector_is_bootable_and_has_one_partition_to_the_end() -> None:
    sector = disk.first_sector(b"\xeb" * 512, 8 << 30)
    assert len(sector) == 512
    assert sector[:440] == b"\xeb" * 440
    assert sector[-2:] == b"\x55\xaa"
    active, kind, start, length = struct.unpack("<B3xB3xII", sector[446:462])
    assert (active, kind, start) == (0x80, 0x83, 2048)
    assert (start + length) * 512 == 8 << 30
    assert sector[462:510] == bytes(48)


def test_the_kernel_is_told_the_partition_that_the_disk_has() -> None:
    (signature,) = struct.unpack("<I", disk.first_sector(bytes(512))[440:444])
    assert f"PARTUUID={signature:08x}-01" == disk.ROOT_DEVICE
    assert f"root={disk.ROOT_DEVICE} " in guest.GRUB_CFG


def test_the_menu_follows_the_links_that_debian_keeps() -> None:
    lines = [line.split() for line in guest.GRUB_CFG.splitlines()]
    assert [words[1] for words in lines if words[:1] == ["linux"]] == ["/vmlinuz", "/vmlinuz.old"]
    assert [words[1] for words in lines if words[:1] == ["initrd"]] == ["/initrd.img", "/initrd.img.old"]
    assert guest.GRUB_CFG.count("net.ifnames=0") == 2
    assert guest.GRUB_CFG.count("console=tty0 console=ttyS0,115200") == 2


@pytest.mark.skipif(shutil.which("grub-mkimage") is None, reason="grub-mkimage is not installed (grub-common)")
@pytest.mark.skipif(not disk.GRUB_DIRECTORY.exists(), reason="GRUB for a BIOS is not installed (grub-pc-bin)")
def test_grub_lies_where_its_first_sectors_look_for_it(tmp_path: Path) -> None:
    grub = disk.make_grub(tmp_path)
    assert len(grub.boot) == 512
    assert struct.unpack_from("<Q", grub.boot, 0x5C) == (1,)  # the sector that the first one loads
    start, count = struct.unpack_from("<QH", grub.core, 500)  # what that one loads
    assert start == 2
    assert (count + 1) * 512 == pytest.approx(len(grub.core), abs=511)
    assert len(grub.core) < disk.PARTITION_OFFSET


def test_no_unit_is_both_wanted_and_switched_off() -> None:
    assert not set(guest.UNITS_ON) & set(guest.UNITS_MASKED)


def test_vagrants_key_is_found_wherever_a_package_puts_it(tmp_path: Path) -> None:
    assert guest.find_vagrant_key(tmp_path) is None
    key = tmp_path / "opt/vagrant/embedded/gems/gems/vagrant-2.4.9/keys/vagrant.pub"
    key.parent.mkdir(parents=True)
    key.touch()
    assert guest.find_vagrant_key(tmp_path) == key


# What Vagrant reads


def test_versions_grow_and_are_numbers_as_rubygems_has_them() -> None:
    moment = datetime(2026, 1, 2, 0, 0, 5, tzinfo=UTC)
    assert box_version(moment) == "20260102.5.0"
    later = box_version(moment + timedelta(hours=9))
    assert later == "20260102.32405.0"
    assert box_version(moment + timedelta(days=1)) == "20260103.5.0"


def test_the_catalogue_names_the_box_by_an_address_that_every_path_has() -> None:
    catalogue = json.loads(catalogue_text(_manifest(), Path("/a cache/ä#b/underlay.box")))
    assert catalogue["name"] == boxes.BOX_NAME
    (version,) = catalogue["versions"]
    assert version["version"] == "20260102.5.0"
    assert version["providers"] == [
        {
            "name": "libvirt",
            "url": "file:///a%20cache/%C3%A4%23b/underlay.box",
            "checksum_type": "sha256",
            "checksum": "1234",
        }
    ]


def test_metadata_of_both_providers() -> None:
    assert json.loads(metadata_text(Provider.LIBVIRT)) == {
        "provider": "libvirt",
        "architecture": "amd64",
        "format": "qcow2",
        "virtual_size": 8,
    }
    assert json.loads(metadata_text(Provider.VIRTUALBOX)) == {"provider": "virtualbox", "architecture": "amd64"}


@pytest.mark.parametrize(
    ("provider", "names"),
    [
        (Provider.LIBVIRT, ["metadata.json", "Vagrantfile", "box.img"]),
        (Provider.VIRTUALBOX, ["metadata.json", "Vagrantfile", "box.ovf", "box-disk001.vmdk"]),
    ],
)
def test_a_box_holds_what_its_provider_looks_for(tmp_path: Path, provider: Provider, names: list[str]) -> None:
    image = tmp_path / names[-1]
    image.write_bytes(b"disk")
    pack(tmp_path / "box", image, provider)
    with tarfile.open(tmp_path / "box") as tar:
        assert tar.getnames() == names
        assert {(member.uid, member.gid, member.uname, member.mode) for member in tar} == {(0, 0, "", 0o644)}
        member = tar.extractfile(names[-1])
        assert member is not None
        assert member.read() == b"disk"


def test_the_description_of_a_virtualbox_machine() -> None:
    root = ET.fromstring(ovf_text(name="underlay", disk="box-disk001.vmdk", disk_bytes=8 << 30))  # noqa: S314 our own
    assert root.tag == f"{_OVF}Envelope"
    file = root.find(f"{_OVF}References/{_OVF}File")
    entry = root.find(f"{_OVF}DiskSection/{_OVF}Disk")
    assert file is not None
    assert entry is not None
    assert file.get(f"{_OVF}href") == "box-disk001.vmdk"
    assert entry.get(f"{_OVF}fileRef") == file.get(f"{_OVF}id")
    assert entry.get(f"{_OVF}capacity") == str(8 << 30)
    items = [
        {child.tag.removeprefix(_RASD): child.text for child in item}
        for item in root.iterfind(f"{_OVF}VirtualSystem/{_OVF}VirtualHardwareSection/{_OVF}Item")
    ]
    assert all(list(item) == sorted(item) for item in items)
    by_kind = {item["ResourceType"]: item for item in items}
    assert by_kind["10"]["ResourceSubType"] == "VirtioNet"
    assert by_kind["20"]["ResourceSubType"] == "AHCI"
    assert by_kind["17"]["Parent"] == by_kind["20"]["InstanceID"]
    assert by_kind["17"]["HostResource"] == f"/disk/{entry.get(f'{_OVF}diskId')}"


# Keys, and where boxes lie


def test_the_key_is_that_of_the_inputs_not_of_the_place(checkout: Path) -> None:
    key = box_key("aaaa", Provider.LIBVIRT, checkout)
    assert key == box_key("aaaa", Provider.LIBVIRT)
    assert key != box_key("aaaa", Provider.VIRTUALBOX)
    assert key != box_key("bbbb", Provider.LIBVIRT)


@pytest.mark.parametrize("name", ["guest.py", "disk.py", "build.py", "ovf.py", "files/etc/sudoers.d/vagrant"])
def test_the_key_changes_with_a_file(checkout: Path, name: str) -> None:
    before = box_key("aaaa", Provider.LIBVIRT, checkout)
    with (checkout / "underlay/box" / name).open("a") as stream:
        stream.write("# more\n")
    assert box_key("aaaa", Provider.LIBVIRT, checkout) != before


def test_the_image_does_not_change_with_its_box(checkout: Path) -> None:
    (checkout / guest.FILES_BOX / "etc/more").write_text("")
    assert recipe.image_key(checkout, "amd64") == recipe.image_key(REPOSITORY, "amd64")


def test_a_box_appears_when_it_is_complete_and_others_may_read_it(tmp_path: Path) -> None:
    store = BoxStore(tmp_path)
    assert store.finished() == ()
    manifest = _manifest()
    box = _publish(tmp_path, manifest)
    assert store.finished() == (box,)
    assert (box.provider, box.version, box.built.year) == (Provider.LIBVIRT, "20260102.5.0", 2026)
    assert box.file.read_text() == "abc"
    assert box.path.stat().st_mode & 0o777 == 0o755
    assert box.file.stat().st_mode & 0o777 == 0o644
    assert BOXES.read(box.path, manifest.text()) == box


def test_an_interrupted_build_is_no_box_and_is_swept(tmp_path: Path) -> None:
    store = BoxStore(tmp_path)
    box = _publish(tmp_path, _manifest())
    left = store.path / ".underlay-building-x"
    left.mkdir()
    (left / "manifest.json").write_text(_manifest().text())
    (left / "underlay.box").write_text("abc")
    assert store.finished() == (box,)
    assert store.sweep() > 0
    assert [path.name for path in store.path.iterdir()] == [box.path.name]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with BoxStore(tmp_path).workplace("bbbb") as place:
            box_file(place).write_text("half")
            raise NotReady.of("here", "wrong")

    with pytest.raises(NotReady):
        fail()
    assert list(BoxStore(tmp_path).path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", _manifest().text().replace("libvirt", "other")])
def test_a_damaged_manifest_is_told(text: str) -> None:
    with pytest.raises(NotReady, match="not the manifest of a box"):
        BOXES.read(Path(), text)


def test_the_box_of_a_checkout_is_found_until_its_image_is_built_anew(tmp_path: Path) -> None:
    key = recipe.image_key(REPOSITORY)
    assert find_box(Provider.LIBVIRT, cache=tmp_path) is None
    box = _publish(tmp_path, _manifest(box_key(key, Provider.LIBVIRT), key))
    assert find_box(Provider.LIBVIRT, cache=tmp_path) == box
    assert find_box(Provider.VIRTUALBOX, cache=tmp_path) is None
    _publish_image(tmp_path, key, "00ff")
    assert find_box(Provider.LIBVIRT, cache=tmp_path) == box
    _publish_image(tmp_path, key, "another")
    assert find_box(Provider.LIBVIRT, cache=tmp_path) is None


def test_boxes_go_with_their_image_and_when_their_recipe_is_another(tmp_path: Path) -> None:
    now = _publish(tmp_path, _manifest(box_key("aaaa", Provider.LIBVIRT)))
    outdated = _publish(tmp_path, _manifest("older"))
    other = _publish(tmp_path, _manifest(box_key("cccc", Provider.LIBVIRT), "cccc"))
    assert clean_boxes(keep_images=("aaaa", "cccc"), cache=tmp_path) > 0
    assert (now.path.exists(), outdated.path.exists(), other.path.exists()) == (True, False, True)
    clean_boxes(keep_images=("aaaa",), cache=tmp_path)
    assert (now.path.exists(), other.path.exists()) == (True, False)
    clean_boxes(cache=tmp_path)
    assert BoxStore(tmp_path).finished() == ()
    assert clean_boxes(cache=tmp_path / "none") == 0


def test_what_is_missing_is_named_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(boxes, "missing_packages", lambda: needs.BOX)
    with pytest.raises(NotReady) as caught:
        boxes.check_box_machine(tmp_path)
    hints = {problem.hint for problem in caught.value.problems if "is not installed" in problem.what}
    names = " ".join(sorted({need.package for need in needs.BOX}))
    assert len(hints) == 1
    assert hints.pop().endswith((f"--no-install-recommends {names}", "package manager"))
