"""Building a Vagrant box from an image: the same tree, on a disk that starts by itself.

It needs no network and no loop device. The disk is the same for both providers but for its format.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from underlay import needs, packages
from underlay.artifacts import refuse_to_wait, space_problems
from underlay.box.disk import DISK_BYTES, make_grub, write_disk
from underlay.box.guest import FILES_BOX, find_vagrant_key, furnish
from underlay.box.overlay import Layer
from underlay.box.ovf import ovf_text
from underlay.box.store import Box, BoxStore, Manifest, Provider, box_file, final_file, folder_name
from underlay.errors import NotReady, Problem
from underlay.image import recipe
from underlay.image.build import build_image, find_image
from underlay.image.isolate import STEP_TIMEOUT
from underlay.image.store import Image, ImageStore
from underlay.packages import Need
from underlay.process import run
from underlay.progress import Progress
from underlay.repository import REPOSITORY

#: The box's name in Vagrant. It belongs to no registry: Vagrant finds it in what was added on this machine.
BOX_NAME = "underlay/host"

_HERE = Path("underlay/box")
#: The code that decides what a box holds. It counts as an input, as it does for an image.
_CODE = tuple(_HERE / name for name in ("build.py", "guest.py", "disk.py", "ovf.py"))
_KEY_LENGTH = 16
_ARCHITECTURE = "amd64"

#: Bytes that a build needs: the disk as it is written, as it is converted, and the box.
_BYTES_NEEDED = 4_000_000_000
#: Seconds to convert a disk; compressing is what takes it.
_CONVERT_TIMEOUT = 600.0

#: Name of the disk in the box. The first is what vagrant-libvirt looks for.
_DISKS = {Provider.LIBVIRT: "box.img", Provider.VIRTUALBOX: "box-disk001.vmdk"}
_FORMATS = {
    Provider.LIBVIRT: ("-O", "qcow2", "-o", "compression_type=zstd", "-c"),
    Provider.VIRTUALBOX: ("-O", "vmdk", "-o", "subformat=streamOptimized"),
}
_OVF = "box.ovf"

#: VirtualBox's range of hardware addresses. Every machine has the first card on a network of its own.
_BASE_MAC = "080027756E64"
_VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  # There are no guest additions and no NFS in the box; rsync is.
  config.vm.synced_folder ".", "/vagrant", type: "rsync"
"""
_VAGRANTFILES = {
    Provider.LIBVIRT: f"{_VAGRANTFILE}end\n",
    Provider.VIRTUALBOX: f"""\
{_VAGRANTFILE}\
  config.vm.base_mac = "{_BASE_MAC}"
  config.vm.provider :virtualbox do |virtualbox|
    virtualbox.check_guest_additions = false
    virtualbox.functional_vboxsf = false
    # Debian's cloud kernel has drivers for this card only.
    virtualbox.default_nic_type = "virtio"
  end
end
""",
}


def box_key(image_key: str, provider: Provider, root: Path = REPOSITORY) -> str:
    """Return the name of the box that the checkout ``root`` describes: a hash over the image's and the box's recipe."""
    copied = (path.relative_to(root) for path in (root / FILES_BOX).rglob("*") if path.is_file())
    files = {str(path): hashlib.sha256((root / path).read_bytes()).hexdigest() for path in (*copied, *_CODE)}
    inputs = {"image": image_key, "provider": provider, "files": files}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:_KEY_LENGTH]


def find_box(provider: Provider, *, root: Path = REPOSITORY, cache: Path | None = None) -> Box | None:
    """Return the finished box that the checkout ``root`` describes, or None.

    None as well when its image has been built anew since. It needs no right to read the images, which are root's.
    """
    image_key = recipe.image_key(root)
    box = BoxStore(cache).find(_folder(image_key, provider, root))
    if box is None or not os.access(ImageStore(cache).path, os.R_OK | os.X_OK):
        return box
    image = find_image(image_key, root=root, cache=cache)
    return box if image is None or image.sha256 == box.image_sha256 else None


def list_boxes(*, cache: Path | None = None) -> tuple[Box, ...]:
    """Return all finished boxes, the oldest first."""
    return BoxStore(cache).finished()


def build_box(
    provider: Provider,
    *,
    progress: Progress,
    root: Path = REPOSITORY,
    cache: Path | None = None,
    force: bool = False,
) -> Box:
    """Return the box that the checkout ``root`` describes, built first (its image too) unless it is there.

    Raises NotReady when the machine cannot build it or a program fails.
    """
    if not force and (box := find_box(provider, root=root, cache=cache)) is not None:
        return box
    store, images = BoxStore(cache), ImageStore(cache)
    check_box_machine(store.path)
    image = build_image(progress=progress, root=root, cache=cache)
    with images.locked(lambda owner: progress.step(f"wait for another build (process {owner})")):
        if images.find(image.key) != image:
            raise NotReady(Problem(f"image {image.key}", "it was removed or replaced just now", "build the box again"))
        if not force and (box := find_box(provider, root=root, cache=cache)) is not None:
            return box  # the other builder made it
        store.sweep()
        with store.workplace(provider) as place:
            manifest = _build(place, image, provider, root, progress)
            progress.step("write the box to disk")
            run(("sync", "--file-system", str(place)), timeout=STEP_TIMEOUT, where="box")
            return store.add(place, manifest, catalogue_text(manifest, final_file(cache, manifest.folder)))


def clean_boxes(*, keep_images: Collection[str] = (), root: Path = REPOSITORY, cache: Path | None = None) -> int:
    """Remove boxes whose image's key is not in ``keep_images`` or that its recipe no longer describes.

    Returns the bytes freed. What Vagrant has added is Vagrant's own copy, and stays.
    """
    store = BoxStore(cache)
    if not store.path.exists():
        return 0
    with ImageStore(cache).locked(refuse_to_wait):
        return store.clean(keep={_folder(key, provider, root) for key in keep_images for provider in Provider})


def check_box_machine(cache: Path) -> None:
    """Raise NotReady with everything that this machine lacks to build a box below ``cache``."""
    problems: list[Problem] = []
    if recipe.architecture() != _ARCHITECTURE:
        what = f"this machine is {recipe.architecture()}; boxes start from a BIOS, which only {_ARCHITECTURE} has"
        problems.append(Problem("box", what, "use the namespace hosts: ./lab up"))
    if os.geteuid() != 0:
        problems.append(Problem("box", "only root can build a box", "run the same command with sudo"))
    problems += packages.problems(missing_packages())
    problems += space_problems(cache, _BYTES_NEEDED)
    if problems:
        raise NotReady(*problems)


def missing_packages() -> tuple[Need, ...]:
    """Return what building a box needs and this machine has not."""
    key = () if find_vagrant_key() else (needs.VAGRANT_KEY,)
    return (*packages.missing(needs.BOX), *key)


def catalogue_text(manifest: Manifest, box: Path) -> str:
    """Return the file that makes a box one with a version for ``vagrant box add``; ``box`` is where the box file is.

    https://developer.hashicorp.com/vagrant/docs/boxes/format says what it holds.
    """
    provider = {
        "name": manifest.provider,
        "url": box.absolute().as_uri(),
        "checksum_type": "sha256",
        "checksum": manifest.sha256,
    }
    versions = [{"version": manifest.version, "providers": [provider]}]
    text = json.dumps({"name": BOX_NAME, "description": "A host of Underlay", "versions": versions}, indent=2)
    return f"{text}\n"


def box_version(created: datetime) -> str:
    """Return a version that grows with time: day and second of the day, each a number as RubyGems orders them."""
    second = created.hour * 3600 + created.minute * 60 + created.second
    return f"{created:%Y%m%d}.{second}.0"


def _build(place: Path, image: Image, provider: Provider, root: Path, progress: Progress) -> Manifest:
    """Make the box file in ``place`` and return what it is."""
    created = datetime.now(tz=UTC)
    started = time.monotonic()
    key_file = find_vagrant_key()
    if key_file is None:
        raise NotReady(*packages.problems((needs.VAGRANT_KEY,)))
    scratch = place / "scratch"
    scratch.mkdir()
    progress.step("configure the virtual machine")
    layer = Layer.over(image.rootfs, scratch / "layer")
    furnish(layer, root, key_file.read_text())
    progress.step("write the disk")
    raw, disk = scratch / "disk.raw", scratch / _DISKS[provider]
    write_disk(raw, layer, make_grub(scratch))
    progress.step(f"convert it for {provider}")
    convert = ("qemu-img", "convert", "-f", "raw", *_FORMATS[provider], str(raw), str(disk))
    run(convert, timeout=_CONVERT_TIMEOUT, where="box")
    raw.unlink()
    progress.step("pack the box")
    file = box_file(place)
    pack(file, disk, provider)
    shutil.rmtree(scratch)
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return Manifest(
        provider=provider,
        key=box_key(image.key, provider, root),
        image_key=image.key,
        image_sha256=image.sha256,
        version=box_version(created),
        sha256=sha256,
        size_bytes=file.stat().st_size,
        build_seconds=round(time.monotonic() - started, 1),
        created=created.isoformat(timespec="seconds"),
    )


def pack(target: Path, disk: Path, provider: Provider) -> None:
    """Write the box: a tar file, as https://developer.hashicorp.com/vagrant/docs/boxes/format has it.

    Not compressed as a whole: the disk in it is.
    """
    texts = {"metadata.json": metadata_text(provider), "Vagrantfile": _VAGRANTFILES[provider]}
    if provider is Provider.VIRTUALBOX:
        texts[_OVF] = ovf_text(name="underlay", disk=disk.name, disk_bytes=DISK_BYTES)
    with tarfile.open(target, "x", format=tarfile.GNU_FORMAT) as tar:
        for name, text in texts.items():
            content = text.encode()
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), recipe.SOURCE_DATE_EPOCH
            tar.addfile(member, io.BytesIO(content))
        tar.add(disk, disk.name, filter=_plain)


def metadata_text(provider: Provider) -> str:
    """Return the box's metadata.json. vagrant-libvirt wants the disk's size in whole gigabytes (2^30 bytes)."""
    metadata: dict[str, str | int] = {"provider": provider, "architecture": _ARCHITECTURE}
    if provider is Provider.LIBVIRT:
        metadata |= {"format": "qcow2", "virtual_size": DISK_BYTES >> 30}
    return json.dumps(metadata, indent=2) + "\n"


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    member.mtime = recipe.SOURCE_DATE_EPOCH
    return member


def _folder(image_key: str, provider: Provider, root: Path) -> str:
    return folder_name(image_key, provider, box_key(image_key, provider, root))
