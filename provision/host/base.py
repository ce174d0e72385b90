"""``python3 -m provision.host.base``: make a virtual machine a host of the lab, like those of the other kind.

On our own box little is left to do. Another box of Debian 13 is completed first, by the same steps that make our image.
Runs as root in the repository, on whatever Python the machine has; running it again changes nothing.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from provision.host.receive import SETTINGS
from underlay import durable
from underlay.box import guest
from underlay.ending import ending
from underlay.errors import InputError, NotReady, Problem
from underlay.image import customise, pythonenv, recipe
from underlay.process import Completed, run
from underlay.repository import REPOSITORY
from underlay.signals import usual_signals

#: The plan, the secret, the host's identity and the names of all hosts are there.
_SETTINGS = SETTINGS
_ROOT = Path("/")
#: So that nobody changes addresses, names and routes of links that phases made.
_LINK_FILES = ("etc/systemd/network/99-default.link", "etc/systemd/networkd.conf.d/underlay.conf")
#: Filters on bridges need the first one; phases may ask for the others, where the kernel has them.
_MODULES = ("br_netfilter", "overlay", "vxlan", "ip_vs")
_MODULES_FILE = Path("/etc/modules-load.d/underlay.conf")
_ORDER_FILE = Path("/etc/systemd/system/supervisor.service.d/underlay.conf")
#: The supervisor converges the phases that were on as soon as it starts, and they need the underlay's address. The
#: unit that would wait for every network is not used: what it waits for may never come. Its programs find the lab's
#: Python by the PATH that the supervisor was started with.
_ORDER = """\
# Written by provision.host.base: phases come back at boot when the host has its address on the underlay.
[Unit]
After=systemd-networkd.service

[Service]
EnvironmentFile=/etc/environment
Environment=HOME=/root LANG=C.UTF-8 PYTHONPATH={repository} PYTHONSAFEPATH=1
ExecStartPre=-/usr/lib/systemd/systemd-networkd-wait-online --ipv4 --interface={link} --timeout={seconds}
"""
#: Seconds that a boot waits for the underlay's address, a command may take, and packages may take to come.
_LINK_S = 60
_COMMAND_S = 120.0
#: Where a user keeps the keys that open the way in, below the home directory (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
_KEYS = Path(".ssh/authorized_keys")
#: sshd's answers that let root in with a key (sshd_config(5)); and our word for it where the box says otherwise.
_ROOT_MAY = {"yes", "prohibit-password", "without-password"}
_ROOT_FILE = Path("/etc/ssh/sshd_config.d/00-underlay-root.conf")
_ROOT_LOGIN = "# Written by provision.host.base: the suite's commands run as root.\nPermitRootLogin prohibit-password\n"
_INSTALL_S = 900.0


def main() -> int:
    """Do all of it, saying what was changed; return the exit code."""
    usual_signals()
    try:
        changes = [*_complete(), *_admit(), *_identify(), *_prepare()]
    except (Exception, KeyboardInterrupt) as error:
        return ending(error, "./lab vagrant provision takes it from here")
    os.sync()  # a power cut shall not take any of it back
    for change in changes:
        print(f"  {change}")
    print(f"{os.uname().nodename}: base: {len(changes)} changes")
    return 0


def _complete() -> list[str]:
    """Give a box what our image has."""
    changes = []
    missing = _not_installed(
        name
        for name in recipe.read_packages(REPOSITORY, recipe.architecture())
        if not name.startswith("linux-image")  # it has a kernel
    )
    if missing:
        customise.copy_files(REPOSITORY / recipe.FILES_BEFORE, _ROOT)
        _apt(missing)
        changes.append(f"packages: {', '.join(missing)}")
    if missing or not _has(REPOSITORY / recipe.FILES_AFTER):
        # Packages start what they bring; here only the plan does.
        _run("systemctl", "disable", "--now", *customise.UNITS_OFF)
        customise.copy_files(REPOSITORY / recipe.FILES_AFTER, _ROOT)
        changes.append("settings of the image")
    ours = REPOSITORY / guest.FILES_BOX
    if new := [name for name in _LINK_FILES if _write(_ROOT / name, (ours / name).read_text())]:
        _run("udevadm", "control", "--reload")
        _run("systemctl", "try-restart", "systemd-networkd.service")
        changes += [f"/{name}" for name in new]
    # Its packages are compiled last, in the order of their names.
    if not any(pythonenv.site_packages(_ROOT).glob("yaml/__pycache__/*")):
        _make_python()
        changes.append(f"Python environment {pythonenv.HOME}")
    return changes


def _has(source: Path) -> bool:
    """Whether the machine has all files of a directory as they are there."""
    files = [path for path in source.rglob("*") if path.is_file()]
    there = [_ROOT / path.relative_to(source) for path in files]
    return all(own.exists() and own.read_bytes() == path.read_bytes() for own, path in zip(there, files, strict=True))


def _admit() -> list[str]:
    """Let root in with the keys of the user that Vagrant logs in as, who may become root anyway."""
    user = os.environ.get("SUDO_USER")
    if user is None:
        return []  # run by hand, as root: whoever that is has a way in
    changes = []
    own, keys = Path("/root", _KEYS), Path(pwd.getpwnam(user).pw_dir, _KEYS)
    there = own.read_text().splitlines() if own.exists() else []
    new = [line for line in (keys.read_text().splitlines() if keys.exists() else []) if line and line not in there]
    if new:
        own.parent.mkdir(mode=0o700, exist_ok=True)
        _write(own, "\n".join([*there, *new, ""]), mode=0o600)
        changes.append(f"root is let in with {user}'s key")
    answer = re.search(r"^permitrootlogin (\S+)", _run("/usr/sbin/sshd", "-T", check=False).stdout, re.MULTILINE)
    if answer and answer[1] not in _ROOT_MAY:
        _write(_ROOT_FILE, _ROOT_LOGIN)
        _run("systemctl", "reload", "ssh.service")
        changes.append("root may log in with a key")
    return changes


def _identify() -> list[str]:
    """Make the machine this host of this lab."""
    missing = [name for name in ("host.json", "topology.yaml", "secret", "hosts") if not (_SETTINGS / name).exists()]
    if missing:
        raise NotReady(
            *(
                Problem(
                    str(_SETTINGS / name),
                    "it is not there; Vagrant copies it",
                    "on the workstation: ./lab vagrant provision",
                )
                for name in missing
            )
        )
    host = json.loads((_SETTINGS / "host.json").read_text())["host"]
    if not isinstance(host, str):
        raise InputError(
            Problem(str(_SETTINGS / "host.json"), "it names no host", "on the workstation: ./lab vagrant provision")
        )
    changes = []
    if os.uname().nodename != host:
        _run("hostnamectl", "set-hostname", host)
        changes.append(f"host name {host}")
    if _write(Path("/etc/hosts"), (_SETTINGS / "hosts").read_text()):
        changes.append("/etc/hosts")
    return changes


def _prepare() -> list[str]:
    """Have ready at every boot what phases need."""
    changes = []
    here = [name for name in _MODULES if _run("modprobe", "--quiet", name, check=False).ok]
    if _write(_MODULES_FILE, "\n".join(["# Written by provision.host.base.", *here, ""])):
        changes.append(f"kernel modules: {', '.join(here)}")
    if _MODULES[0] not in here and not Path("/proc/sys/net/bridge").exists():
        hint = "boot Debian's kernel, which has it"
        raise NotReady(Problem(os.uname().nodename, f"this kernel has no {_MODULES[0]}", hint))
    if _write(_ORDER_FILE, _ORDER.format(link=_underlay_link(), seconds=_LINK_S, repository=REPOSITORY)):
        _run("systemctl", "daemon-reload")
        _run("systemctl", "restart", "supervisor.service")
        changes.append("order at boot: the underlay's address, then the phases")
    return changes


def _underlay_link() -> str:
    """Return the link with the underlay's address: the only one that a name in /etc/hosts leads to."""
    own = {
        line.split()[0] for line in (_SETTINGS / "hosts").read_text().splitlines() if _names(line, os.uname().nodename)
    }
    for link in json.loads(_run("ip", "-json", "-4", "address").stdout):
        if any(entry["local"] in own for entry in link["addr_info"]):
            return str(link["ifname"])
    hint = "the machine's network was changed by hand: ./lab vagrant reload"
    raise NotReady(Problem(os.uname().nodename, f"no link has the underlay's address {', '.join(own)}", hint))


def _names(line: str, host: str) -> bool:
    return not line.startswith("#") and host in line.split()[1:]


def _not_installed(packages: Iterable[str]) -> list[str]:
    wanted = list(packages)
    # Exit code 1 says that it does not know some of them; it shows the others.
    known = _run("dpkg-query", "--show", "--showformat=${Package} ${Status}\\n", *wanted, check=False).stdout
    there = {line.split()[0] for line in known.splitlines() if line.endswith(" installed")}
    return [name for name in wanted if name not in there]


def _apt(packages: Sequence[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(("apt-get", "update"), timeout=_INSTALL_S, env=environment, where="base")
    command = ("apt-get", "install", "--yes", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold")
    run((*command, *packages), timeout=_INSTALL_S, env=environment, where="base")


def _make_python() -> None:
    if not _run("python3", "-c", "import ensurepip, venv", check=False).ok:
        _apt(["python3-venv"])
    if pythonenv.HOME.exists():
        shutil.rmtree(pythonenv.HOME)  # half of it
    # On the same file system, so that what is unpacked can be moved.
    with tempfile.TemporaryDirectory(prefix="underlay-", dir=pythonenv.HOME.parent) as directory:
        tool, packages = Path(directory, "pip"), Path(directory, "packages")
        run(("python3", "-m", "venv", str(tool)), timeout=_COMMAND_S, where="base")
        run(
            recipe.pip_argv(
                python=str(tool / "bin/python"),
                requirements=REPOSITORY / recipe.REQUIREMENTS,
                target=packages,
                arch=recipe.architecture(),
            ),
            timeout=_INSTALL_S,
            where="base",
        )
        pythonenv.make_environment(_ROOT, packages)


def _write(path: Path, text: str, mode: int = 0o644) -> bool:
    """Write a file unless it says that already; return whether it did not."""
    if path.exists() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(path, text, mode=mode)
    return True


def _run(*words: str, check: bool = True) -> Completed:
    return run(words, timeout=_COMMAND_S, check=check, where="base")


if __name__ == "__main__":
    sys.exit(main())
