"""What a virtual machine's tree has and the image's has not: a way in for Vagrant, a network, a boot menu."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from underlay.box.disk import ROOT_DEVICE
from underlay.box.overlay import Layer, run_in_layer
from underlay.errors import NotReady, Problem
from underlay.image import customise

#: Copied over the image's tree, relative to the checkout.
FILES_BOX = Path("underlay/box/files")

#: The user that Vagrant logs in as (https://developer.hashicorp.com/vagrant/docs/boxes/base).
_USER = "vagrant"
_UID = 1000
_HOME = Path("home") / _USER

#: What must be running for a box to be one.
UNITS_ON = (
    "systemd-networkd.service",
    "underlay-resolv.service",
    "underlay-resolv.path",
    "ssh.service",
    "supervisor.service",
)
#: Changes a host under test behind the tests' back.
_TIMERS_MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer")
#: What a boot would spend time on and no host of the lab has: under software emulation, half of it.
UNITS_MASKED = (
    "systemd-networkd-wait-online.service",  # nothing here waits for a network
    "apparmor.service",  # profiles of programs that are not installed; Docker loads its own
    "ipvsadm.service",  # restores a table that nobody saved
    "systemd-remount-fs.service",  # the kernel mounts the root as it shall be
    "systemd-pstore.service",  # no firmware keeps crash records here
    "systemd-binfmt.service",
    "systemd-networkd-persistent-storage.service",  # no DHCP server here has leases to keep
    "systemd-network-generator.service",  # the kernel's command line names no network
    "systemd-udev-load-credentials.service",
    "modprobe@drm.service",
    "dev-hugepages.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
)
#: Likewise (systemd.generator(7)): sockets of virtual machines, partitions by type, hibernation, TPM.
_GENERATORS_MASKED = (
    "systemd-ssh-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-tpm2-generator",
)
#: networkd would give addresses to links that happen to be named as its own containers' are.
_NETWORKS_MASKED = ("80-6rd-tunnel", "80-container-vb", "80-container-ve", "80-container-vz", "80-vm-vt")

_FSTAB = "# The boot menu (/boot/grub/grub.cfg) names the root file system and how it is mounted. There is no swap.\n"
#: The last console named is the one that init writes to; both show the kernel's messages (kernel's serial-console).
_CONSOLES = "console=tty0 console=ttyS0,115200 loglevel=4"
#: No self-tests of ciphers; Debian's list of security modules without bpf, into which systemd would load a program that
#: takes ten seconds of a slow boot; no check of the timer, which may be late when it is emulated: that stops the boot.
_QUICKER = "lsm=landlock,lockdown,yama,loadpin,safesetid,apparmor audit=0 cryptomgr.notests no_timer_check"
_KERNEL_ARGUMENTS = f"root={ROOT_DEVICE} rw rootflags=noatime,errors=remount-ro net.ifnames=0 {_CONSOLES} {_QUICKER}"
#: GRUB follows the links that Debian's kernel packages keep (linux-update-symlinks(1)): a kernel installed in the
#: machine is the one that boots next, with nothing to run after it.
GRUB_CFG = f"""\
# Loads the newest installed kernel; if it cannot be read, the one before.
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=0
set default=0
set fallback=1

menuentry "Debian" {{
    linux /vmlinuz {_KERNEL_ARGUMENTS}
    initrd /initrd.img
}}

menuentry "Debian, the kernel before" {{
    linux /vmlinuz.old {_KERNEL_ARGUMENTS}
    initrd /initrd.img.old
}}
"""

#: Where Debian's package, HashiCorp's, and a gem keep the public half of the key that every new box opens with.
_KEY_PLACES = (
    "/usr/share/rubygems-integration/all/gems/vagrant-*/keys/vagrant.pub",
    "/usr/share/vagrant/keys/vagrant.pub",
    "/opt/vagrant/embedded/gems/*/gems/vagrant-*/keys/vagrant.pub",
    "/opt/vagrant/embedded/gems/gems/vagrant-*/keys/vagrant.pub",
    "/var/lib/gems/*/gems/vagrant-*/keys/vagrant.pub",
)


def find_vagrant_key(root: Path = Path("/")) -> Path | None:
    """Return Vagrant's file of the insecure public key, or None without Vagrant.

    It is public knowledge, and Vagrant replaces it when it first reaches a machine.
    """
    found = (path for place in _KEY_PLACES for path in sorted(root.glob(place.lstrip("/")), reverse=True))
    return next(found, None)


def furnish(layer: Layer, checkout: Path, vagrant_key: str) -> None:
    """Make a virtual machine's tree out of the image's, in a layer over it."""
    changes = layer.changes
    customise.copy_files(checkout / FILES_BOX, changes)
    (changes / "etc/sudoers.d" / _USER).chmod(0o440)
    _write(changes, Path("etc/fstab"), _FSTAB)
    _write(changes, Path("boot/grub/grub.cfg"), GRUB_CFG)
    (changes / "vagrant").mkdir()
    _mask(changes / "etc/systemd/network", [f"{name}.network" for name in _NETWORKS_MASKED])
    _mask(changes / "etc/systemd/system", (*UNITS_MASKED, *_TIMERS_MASKED))
    _mask(changes / "etc/systemd/system-generators", _GENERATORS_MASKED)
    owner = str(_UID)
    run_in_layer(layer, ("useradd", "--create-home", "--uid", owner, "--user-group", "--shell", "/bin/bash", _USER))
    _write(changes, _HOME / ".ssh/authorized_keys", vagrant_key)
    (changes / _HOME / ".ssh").chmod(0o700)
    (changes / _HOME / ".ssh/authorized_keys").chmod(0o600)
    run_in_layer(layer, ("chown", "--recursive", f"{_USER}:{_USER}", f"/{_HOME}", "/vagrant"))
    run_in_layer(layer, ("systemctl", "--quiet", "enable", *UNITS_ON))
    _boot_files(layer)
    _mark_updated(changes)


def _boot_files(layer: Layer) -> None:
    """Make the small initramfs that the layer's configuration asks for, and the links that the boot menu names."""
    kernels = sorted(layer.lower("boot").glob("vmlinuz-*"))
    if not kernels:
        raise NotReady(Problem("box", "the image holds no kernel", "build it again: ./lab image build --force"))
    for kernel in kernels:
        version = kernel.name.partition("-")[2]
        run_in_layer(layer, ("update-initramfs", "-u", "-k", version))
        run_in_layer(layer, ("linux-update-symlinks", "install", version, f"/boot/{kernel.name}"))


def _mask(folder: Path, names: Iterable[str]) -> None:
    """Switch units, generators or networks off as systemd has it: a link to nowhere goes before the package's file."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).symlink_to("/dev/null")


def _mark_updated(changes: Path) -> None:
    """Say that /etc and /var know what is in /usr, which is older than these marks (systemd-update-done.service(8))."""
    for folder in ("etc", "var"):
        _write(changes, Path(folder, ".updated"), "")


def _write(tree: Path, relative: Path, text: str) -> None:
    path = tree / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o644)
