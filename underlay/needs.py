"""What must be installed on this machine, and why: the one list. Each part takes from it what it stands on."""

from __future__ import annotations

from underlay.packages import Need

#: Namespace hosts, and the wire between them.
HOSTS = (
    Need("ip", "iproute2", "makes the wire between the hosts"),
    Need("nsenter", "util-linux", "enters a host"),
    Need("unshare", "util-linux", "makes the wire's namespace"),
    Need("umount", "mount", "keeps the wire's namespace, and lets it go"),
    Need("tee", "coreutils", "writes the wire's settings"),
)

#: The image that hosts are booted from.
IMAGE = (
    Need("mmdebstrap", "mmdebstrap", "builds the hosts' root filesystem"),
    Need("tar", "tar", "unpacks it"),
    # Its suffix has changed with Debian's release: gpg, pgp.
    Need(
        "/usr/share/keyrings/debian-archive-keyring.[gp][gp][gp]",
        "debian-archive-keyring",
        "knows the archive's signatures",
    ),
    *(Need(program, "util-linux", "keeps the build to itself") for program in ("unshare", "setpriv")),
    Need("umount", "mount", "lets go of what a build mounted"),
    Need("chroot", "coreutils", "runs programs of the image"),
)
#: What no sign shows: whether this Python has it is asked of this Python.
PIP = Need("pip", "python3-pip", "fetches the hosts' Python packages")

#: A box, beside its image.
GRUB = Need("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin", "holds the boot loader's code")
BOX = (
    Need("mke2fs", "e2fsprogs", "writes the box's file system"),
    Need("grub-mkimage", "grub-common", "makes its boot loader"),
    GRUB,
    Need("qemu-img", "qemu-utils", "converts its disk"),
    *(Need(program, "util-linux", "keeps the build to itself") for program in ("unshare", "setpriv")),
    Need("mount", "mount", "lays the box over the image"),
)
#: What no sign shows: the key is looked for by itself.
VAGRANT_KEY = Need("vagrant", "vagrant", "has the key that a new box opens with")

#: Virtual machines under libvirt.
VIRSH = Need("virsh", "libvirt-clients", "asks libvirt")
_LIBVIRTD = Need("libvirtd", "libvirt-daemon-system", "runs virtual machines")
_PLUGIN = Need(
    "/usr/share/rubygems-integration/all/gems/vagrant-libvirt-*", "vagrant-libvirt", "lets Vagrant speak to libvirt"
)
LIBVIRT = (_LIBVIRTD, VIRSH, _PLUGIN)
#: A libvirt that we start ourselves, and what it needs.
LIBVIRT_OF_OURS = (
    _LIBVIRTD,
    Need("virtlogd", "libvirt-daemon-system", "keeps their consoles' output"),
    Need("dbus-daemon", "dbus-daemon", "is what libvirtd talks to the system by"),
    VIRSH,
    Need("qemu-system-x86_64", "qemu-system-x86", "is the virtual machine"),
    Need("dnsmasq", "dnsmasq-base", "gives the guests addresses"),
    Need("iptables", "iptables", "makes libvirt's networks"),
)
#: What makes machines under libvirt, whoever started that.
RSYNC = Need("rsync", "rsync", "copies the repository to the machines")
VAGRANT = (
    Need("vagrant", "vagrant", "makes the machines"),
    _PLUGIN,
    RSYNC,
    Need("ssh", "openssh-client", "reaches them"),
)
