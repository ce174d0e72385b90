"""A disk that a PC's BIOS can start from, written as a file: partition table, GRUB, one ext4 file system.

No loop device is needed: GRUB's first sectors are the same on every disk when the rest of GRUB follows them directly,
which is where a partition table leaves room for it, and mke2fs(8) writes into a file at an offset.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from underlay import needs
from underlay.box.overlay import Layer, run_overlaid
from underlay.errors import NotReady, Problem
from underlay.image.isolate import STEP_TIMEOUT
from underlay.packages import search_path
from underlay.process import run

_SECTOR = 512
_MIB = 1 << 20
#: Bytes of the whole disk; sparse, so that only what is used lies on the machine's disk.
DISK_BYTES = 8 << 30
#: Where the one partition begins, as every partitioning tool has it. GRUB lies before it.
PARTITION_OFFSET = _MIB

#: Names the disk: the kernel calls the partition by it whatever the controller is ("undl" in ASCII).
_DISK_SIGNATURE = 0x756E646C
#: How the kernel and fstab(5) name the root file system.
ROOT_DEVICE = f"PARTUUID={_DISK_SIGNATURE:08x}-01"

#: Bytes of the first sector before the disk signature: the boot code (and room for a BPB, which a disk has none of).
_BOOT_CODE = 440
_ACTIVE = 0x80
_LINUX = 0x83
#: "Beyond what cylinders, heads and sectors can say": look at the sector numbers instead.
_CHS_BEYOND = b"\xfe\xff\xff"
_SIGNATURE = b"\x55\xaa"

#: GRUB's files for a PC with a BIOS, of the Debian package grub-pc-bin.
GRUB_DIRECTORY = Path(needs.GRUB.sign).parent
_GRUB_FORMAT = "i386-pc"
#: All that the boot menu uses: nothing is loaded from the disk but the menu, the kernel and its initramfs.
_GRUB_MODULES = ("biosdisk", "part_msdos", "ext2", "normal", "linux", "serial", "terminal", "echo", "test", "minicmd")
_GRUB_PREFIX = "(hd0,msdos1)/boot/grub"

#: Features that GRUB 2.06 and kernels from 6.1 on know, whatever this machine's mke2fs.conf would choose.
_FEATURES = "^orphan_file,^metadata_csum_seed"

#: Seconds to write a tree of about 1 GB.
_MKFS_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Grub:
    """GRUB's two parts: the first sector's code, and the rest in whole sectors."""

    boot: bytes
    core: bytes


def make_grub(folder: Path) -> Grub:
    """Link GRUB for a disk as :func:`write_disk` makes it; ``folder`` is for its files. Raises NotReady."""
    core = folder / "core.img"
    argv = ("grub-mkimage", "--format", _GRUB_FORMAT, "--output", str(core), "--prefix", _GRUB_PREFIX, *_GRUB_MODULES)
    run(argv, timeout=STEP_TIMEOUT, env={**os.environ, "PATH": search_path()}, where="box")
    return Grub((GRUB_DIRECTORY / "boot.img").read_bytes(), core.read_bytes())


def first_sector(boot: bytes, disk_bytes: int = DISK_BYTES) -> bytes:
    """Return the first sector of a disk of one active Linux partition, with GRUB's boot code.

    The code reads sector 1 and jumps there, unless told another number by who installs it.
    """
    start = PARTITION_OFFSET // _SECTOR
    partition = struct.pack(
        "<B3sB3sII", _ACTIVE, _CHS_BEYOND, _LINUX, _CHS_BEYOND, start, disk_bytes // _SECTOR - start
    )
    table = partition.ljust(4 * len(partition), b"\0")
    return boot[:_BOOT_CODE] + struct.pack("<IH", _DISK_SIGNATURE, 0) + table + _SIGNATURE


def write_disk(target: Path, layer: Layer, grub: Grub) -> None:
    """Write the disk of a layer's tree to the new file ``target``. Raises NotReady when a program fails."""
    if _SECTOR + len(grub.core) > PARTITION_OFFSET:
        what = f"GRUB has {len(grub.core)} bytes, {PARTITION_OFFSET - _SECTOR} fit before the partition"
        raise NotReady(Problem("box", what, "is this machine's grub-pc-bin Debian's?"))
    with target.open("xb") as stream:
        stream.truncate(DISK_BYTES)
        stream.write(first_sector(grub.boot))
        stream.write(grub.core)
    make = (
        *("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-L", "underlay", "-O", _FEATURES),
        *("-d", str(layer.merged), "-E", f"offset={PARTITION_OFFSET}", str(target)),
        f"{(DISK_BYTES - PARTITION_OFFSET) // 1024}k",
    )
    run_overlaid(layer, make, timeout=_MKFS_TIMEOUT, env={**os.environ, "PATH": search_path()})
