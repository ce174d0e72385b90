from __future__ import annotations

from pathlib import Path

import pytest

from underlay.errors import NotReady
from underlay.image.lockfile import Package, compare_locks, debian_packages, lock_text, parse_lock, python_packages

_STATUS = """\
Package: zstd
Status: install ok installed
Architecture: amd64
Version: 1.5.7+dfsg-1
Description: fast
 Package: this is text of the description
 .

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: adduser
Status: install ok installed
Architecture: all
Version: 3.152
"""


def test_installed_packages_are_read_from_dpkg() -> None:
    assert debian_packages(_STATUS) == (Package("adduser", "3.152", "all"), Package("zstd", "1.5.7+dfsg-1", "amd64"))


def test_python_packages_have_a_name_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "Flask-3.1.3.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: Flask\nVersion: 3.1.3\n")
    assert python_packages(tmp_path) == (Package("python:flask", "3.1.3", "any"),)


def test_lock_survives_writing_and_reading() -> None:
    packages = debian_packages(_STATUS)
    assert parse_lock(lock_text(tuple(reversed(packages)))) == packages


def test_a_damaged_lock_is_told() -> None:
    with pytest.raises(NotReady, match=r"packages\.lock:2: expected `name version arch`, found 'less'"):
        parse_lock("adduser 3.152 all\nless\n")


def test_locks_are_compared_by_package() -> None:
    before = "adduser 3.152 all\nless 668-1 amd64\nzstd 1 amd64\n"
    after = "adduser 3.152 all\nnew 7 all\nzstd 2 amd64\n"
    assert [str(change) for change in compare_locks(before, after)] == [
        "less: 668-1 -> not installed",
        "new: not installed -> 7",
        "zstd: 1 -> 2",
    ]
    assert compare_locks(before, before) == ()
