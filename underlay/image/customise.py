"""What is done to the tree after the packages are in it, until nothing in it depends on when or where it was built."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from underlay.image.isolate import run_inside
from underlay.image.recipe import SOURCE_DATE_EPOCH

#: Installed for what they bring, run only where the plan says so. Background upgrades would change a host under test.
UNITS_OFF = (
    "nginx.service",
    "redis-server.service",
    "postgresql.service",
    # Docker too: a daemon that starts by itself would have its containers before there is a guard.
    "docker.socket",
    "docker.service",
    "containerd.service",
    "docker-registry.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
)

#: Modes that git does not keep, by path below the root.
_MODES = {"etc/sudoers.d/underlay": 0o440}

#: Whatever is in these directories goes; the directories stay.
_EMPTIED = ("run", "tmp", "var/tmp", "var/lib/apt/lists", "var/cache/apt", "var/cache/ldconfig")
#: Files that hold a secret, a time, or a name of the machine that built: each host makes its own.
_REMOVED = (
    "etc/ssh/ssh_host_*",
    "etc/ssl/certs/ssl-cert-snakeoil.pem",
    "etc/ssl/private/ssl-cert-snakeoil.key",
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/.pwd.lock",
    "var/cache/debconf/*-old",
    "var/lib/dpkg/*-old",
    "var/lib/dpkg/lock*",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
)
#: Copied from the building machine by mmdebstrap, or made by an installer; every host gets its own.
#: An empty machine-id is filled at boot (machine-id(5)).
_REWRITTEN = {"etc/hostname": "localhost\n", "etc/resolv.conf": "", "etc/machine-id": ""}

#: ucf(1) leaves the name of its temporary file in debconf's database.
_UCF_TEMPORARY = re.compile(r"^( NEW = )/tmp/.*$", re.MULTILINE)


def copy_files(source: Path, tree: Path) -> None:
    """Copy our files over a tree, owned by root with plain modes, whatever the checkout's are."""
    for path in sorted(source.rglob("*")):
        if not path.is_file():
            continue
        relative = path.relative_to(source)
        _make_parents(tree, relative)
        target = tree / relative
        target.unlink(missing_ok=True)
        shutil.copyfile(path, target)
        executable = os.access(path, os.X_OK)
        target.chmod(_MODES.get(str(relative), 0o755 if executable else 0o644))
        os.chown(target, 0, 0)


def make_initramfs(tree: Path) -> None:
    """Make the kernel's initramfs where the package installer's triggers did not."""
    if not any((tree / "boot").glob("initrd.img-*")):
        run_inside(tree, ("update-initramfs", "-c", "-k", "all"))


def drop_manuals(tree: Path) -> None:
    """Remove what the first packages brought before dpkg's configuration of ours kept it out."""
    for name in ("man", "locale"):
        for path in (tree / "usr/share" / name).iterdir():
            _remove(path)
    for path in _files_below(tree / "usr/share/doc", links=True):
        if path.name != "copyright":
            path.unlink()


def switch_units_off(tree: Path) -> None:
    """Keep services that only the plan may start from starting by themselves."""
    run_inside(tree, ("systemctl", "--quiet", "disable", *UNITS_OFF))


def forget(tree: Path, built_after: float) -> None:
    """Take out what differs between builds; ``built_after``: when this one began, in seconds since 1970."""
    for name in _EMPTIED:
        for path in (tree / name).iterdir():
            _remove(path)
    for pattern in _REMOVED:
        for path in tree.glob(pattern):
            _remove(path)
    for path in _files_below(tree / "var/log"):
        path.unlink()
    _remove_dangling(tree / "etc/ssl/certs")
    for name, text in _REWRITTEN.items():
        path = tree / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o644)
    (tree / "etc/dpkg/dpkg.cfg.d/99mmdebstrap").unlink()  # held UNSAFE_IO alone
    _rewrite(tree / "var/cache/debconf/config.dat", lambda text: _UCF_TEMPORARY.sub(r"\1", text))
    _clamp_times(tree, built_after)


def _make_parents(tree: Path, relative: Path) -> None:
    """Make the directories above a file, each checked: a link there could lead out of the tree."""
    folder = tree
    for name in relative.parent.parts:
        folder /= name
        if folder.is_symlink():
            raise NotADirectoryError(f"{folder} is a link; name the directory that it leads to")
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755)
            os.chown(folder, 0, 0)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _files_below(folder: Path, *, links: bool = False) -> list[Path]:
    return [path for path in folder.rglob("*") if (links if path.is_symlink() else path.is_file())]


def _remove_dangling(folder: Path) -> None:
    """Remove the names (hashes of subjects) that lead to a removed certificate of the same directory."""
    for path in folder.iterdir():
        if path.is_symlink() and (target := path.readlink()).name == str(target) and not (folder / target).exists():
            path.unlink()


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def _clamp_times(tree: Path, built_after: float) -> None:
    """Date all that the build made to the fixed time; files that came dated from a package keep their date.

    Dating those too would make Python distrust the packages' byte code, which names its source's time.
    """
    for path in (*_everything_below(tree), tree):
        # Whole seconds: file systems differ in what they keep below that.
        modified = path.lstat().st_mtime
        seconds = SOURCE_DATE_EPOCH if modified >= built_after else int(modified)
        os.utime(path, (seconds, seconds), follow_symlinks=False)


def _everything_below(tree: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(tree):
        yield from (Path(folder, name) for name in (*files, *folders))
