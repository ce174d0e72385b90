from __future__ import annotations

import os
from pathlib import Path

import pytest

from underlay.image import customise
from underlay.image.build import DebstrapLog
from underlay.image.pythonenv import without_scripts, write_scripts
from underlay.image.recipe import SOURCE_DATE_EPOCH


class _Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, text: str) -> None:
        self.lines.append(text)

    def update(self, done: int, total: int) -> None:
        self.lines.append(f"{done}/{total}")


def test_mmdebstrap_log_becomes_progress() -> None:
    heard = _Heard()
    log = DebstrapLog(heard)
    for line in (
        "I: running apt-get update...",
        "Get:1 somewhere InRelease [43.4 kB]",  # before a number of packages is known
        "I: installing remaining packages inside the chroot...",
        "0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.",
        "Get:1 somewhere less",
        "Preparing to unpack less",
        "Unpacking less (668) ...",
        "Setting up less (668) ...",
        "Setting up less (668) ...",
        "I: success in 57.6 seconds",
    ):
        log.feed(f"{line}\n")
    assert heard.lines == [
        "mmdebstrap: running apt-get update",
        "mmdebstrap: installing remaining packages",
        "1/3",
        "2/3",
        "3/3",
        "3/3",
    ]


def test_records_lose_the_scripts_of_the_builder() -> None:
    record = "../../bin/flask,sha256=abc,200\nflask/app.py,sha256=def,1\nbin/x,,\nflask-3.dist-info/RECORD,,\n"
    assert without_scripts(record) == "flask/app.py,sha256=def,1\nflask-3.dist-info/RECORD,,\n"


def test_scripts_start_the_python_of_the_image(tmp_path: Path) -> None:
    info = tmp_path / "site/thing-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nthing = thing.cli:Group.main\n")
    (tmp_path / "bin").mkdir()
    write_scripts(tmp_path / "site", tmp_path / "bin")
    script = tmp_path / "bin/thing"
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/opt/underlay/bin/python3"
    assert "from thing.cli import Group" in lines
    assert lines[-1].strip() == "sys.exit(Group.main())"
    assert script.stat().st_mode & 0o777 == 0o755
    compile(script.read_text(), str(script), "exec")


def test_a_link_never_leads_a_copy_out_of_the_tree(tmp_path: Path) -> None:
    (tmp_path / "source/etc").mkdir(parents=True)
    (tmp_path / "source/etc/hosts").write_text("x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/etc").symlink_to(tmp_path / "outside")
    with pytest.raises(NotADirectoryError):
        customise.copy_files(tmp_path / "source", tmp_path / "tree")
    assert list((tmp_path / "outside").iterdir()) == []


def test_what_the_build_made_gets_the_fixed_time(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("run", "tmp", "var/tmp", "var/lib/apt/lists", "var/cache/apt", "var/cache/ldconfig", "var/log/apt"):
        (tree / name).mkdir(parents=True)
    certificates = tree / "etc/ssl/certs"
    for folder in ("etc/ssl/certs", "etc/ssh", "etc/dpkg/dpkg.cfg.d", "var/cache/debconf"):
        (tree / folder).mkdir(parents=True)
    (tree / "etc/dpkg/dpkg.cfg.d/99mmdebstrap").write_text("force-unsafe-io\n")
    (tree / "var/cache/debconf/config.dat").write_text("Variables:\n NEW = /tmp/x.1234\n OLD = /etc/x\n")
    (tree / "etc/ssh/ssh_host_rsa_key").write_text("secret")
    (tree / "var/log/apt/history.log").write_text("when")
    (tree / "tmp/left").write_text("")
    (certificates / "ssl-cert-snakeoil.pem").write_text("")
    (certificates / "0123abcd.0").symlink_to("ssl-cert-snakeoil.pem")
    (certificates / "good.pem").symlink_to("/usr/share/ca-certificates/good.crt")
    packaged = tree / "packaged"
    packaged.write_text("")
    made = packaged.stat().st_mtime
    os.utime(packaged, (1000.5, 1000.5))

    customise.forget(tree, built_after=made - 1)

    assert packaged.stat().st_mtime == 1000
    assert tree.stat().st_mtime == SOURCE_DATE_EPOCH
    assert (tree / "etc/machine-id").stat().st_mtime == SOURCE_DATE_EPOCH
    assert (tree / "etc/machine-id").read_text() == ""
    assert (tree / "var/cache/debconf/config.dat").read_text() == "Variables:\n NEW = \n OLD = /etc/x\n"
    left = {str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir()}
    assert left == {
        "packaged",
        "etc/hostname",
        "etc/resolv.conf",
        "etc/machine-id",
        "etc/ssl/certs/good.pem",
        "var/cache/debconf/config.dat",
    }
