"""Boots a box's disk in QEMU's software emulation and asks it over SSH what it is; prints the answers as JSON.

For a network namespace of its own: the way in is a port of that namespace's loopback.
Arguments: disk, its format (qcow2, vmdk), the private half of Vagrant's insecure key, a directory to write into.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from underlay.process import run
from underlay.wait import NotYet, until

#: Seconds. Emulated, and on a machine that does other things too.
BOOT_S = 900.0
COMMAND_S = 300.0
_PORT = "2222"

QUESTIONS = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl --failed --no-legend",
    "active": "systemctl is-active supervisor ssh systemd-networkd",
    "python": "python3 -c 'import pyroute2, sys; print(sys.prefix)'",
    "sudo": "sudo -n id -u",
    "docker": "sudo docker info --format '{{.Driver}}'",
    "interfaces": "ls /sys/class/net",
    "root": "findmnt -no SOURCE,FSTYPE,OPTIONS /",
    "rsync": "rsync --version | head -1",
    "resolver": "cat /etc/resolv.conf",
    "times": "systemd-analyze",
    "blame": "systemd-analyze blame | head -20",
}


def main(argv: Sequence[str]) -> None:
    """Boot, ask, power off."""
    disk, form, key, folder = argv
    place = Path(folder)
    # ssh wants the key to be its user's own.
    own_key = place / "key"
    own_key.write_text(Path(key).read_text())
    own_key.chmod(0o600)
    run(("ip", "link", "set", "lo", "up"), timeout=COMMAND_S)
    started = time.monotonic()
    run(_qemu(disk, form, place), timeout=COMMAND_S)
    ssh = (
        *(
            "ssh",
            "-i",
            str(own_key),
            "-p",
            _PORT,
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ),
        *("-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20", "-o", "BatchMode=yes", "vagrant@127.0.0.1"),
    )

    def reached() -> str | NotYet:
        done = run((*ssh, "true"), timeout=COMMAND_S, check=False)
        return "" if done.ok else NotYet(done.stderr.strip())

    until(reached, deadline_s=BOOT_S, what="a login over SSH", where=disk, interval=0.5)
    answers = {"seconds_to_ssh": f"{time.monotonic() - started:.1f}"}
    for name, question in QUESTIONS.items():
        done = run((*ssh, question), timeout=COMMAND_S, check=False)
        answers[name] = done.stdout.strip() or done.stderr.strip()
    answers["seconds_to_all"] = f"{time.monotonic() - started:.1f}"
    run((*ssh, "sudo poweroff"), timeout=COMMAND_S, check=False)
    pid = int((place / "qemu.pid").read_text())
    until(lambda: None if not _runs(pid) else NotYet("it runs"), deadline_s=COMMAND_S, what="power off", where=disk)
    sys.stdout.write(json.dumps(answers))


def _qemu(disk: str, form: str, place: Path) -> tuple[str, ...]:
    """Return the command: the hardware that the box's provider would give, and a disk that forgets what is written."""
    drive = f"if=none,id=disk,file={disk},format={form},snapshot=on"
    controller: tuple[str, ...] = ("-device", "virtio-blk-pci,drive=disk")
    if form == "vmdk":
        controller = ("-device", "ahci,id=sata", "-device", "ide-hd,drive=disk,bus=sata.0")
    return (
        *("nice", "-n", "19", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1024", "-smp", "2"),
        *("-display", "none", "-daemonize", "-pidfile", str(place / "qemu.pid"), "-serial", f"file:{place / 'serial'}"),
        *("-drive", drive, *controller),
        *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{_PORT}-:22", "-device", "virtio-net-pci,netdev=net"),
    )


def _runs(pid: int) -> bool:
    """Say if a process runs; one that has ended and that nobody has asked about does not (proc_pid_stat(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


if __name__ == "__main__":
    main(sys.argv[1:])
