"""What must be installed: noticed, said, and left alone where it cannot be."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest

from underlay import needs
from underlay.errors import NotReady
from underlay.packages import Need, install_missing, missing
from underlay.progress import Quiet
from underlay.repository import REPOSITORY


def test_needs_say_their_package_and_why() -> None:
    groups = (needs.HOSTS, needs.IMAGE, needs.BOX, needs.LIBVIRT, needs.LIBVIRT_OF_OURS, needs.VAGRANT)
    alone = (needs.PIP, needs.VAGRANT_KEY)
    assert all(need.sign and need.package and need.why for need in (*chain(*groups), *alone))


def test_a_program_comes_from_one_package() -> None:
    known = (*needs.HOSTS, *needs.IMAGE, *needs.BOX, *needs.LIBVIRT_OF_OURS, *needs.VAGRANT)
    packages = {need.sign: need.package for need in known}
    assert [need for need in known if packages[need.sign] != need.package] == []


@pytest.mark.parametrize("suffix", ["gpg", "pgp"])
def test_the_archives_keys_are_seen_under_the_name_of_every_release(suffix: str) -> None:
    signs = [need.sign for need in needs.IMAGE if need.package == "debian-archive-keyring"]
    assert any(Path(f"/usr/share/keyrings/debian-archive-keyring.{suffix}").match(sign) for sign in signs)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search path on which there is nothing but what a test puts there; the usual places are looked at as well."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_missing_program_is_noticed_and_one_on_the_path_is_found(bare: Path) -> None:
    wanted = (Need("frobnicate", "frob-tools", "frobs"),)
    assert missing(wanted) == wanted
    program = bare / "frobnicate"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert missing(wanted) == ()


@pytest.mark.usefixtures("bare")
def test_package_is_named_once_with_its_first_reason() -> None:
    first, again = Need("frobnicate", "frob-tools", "frobs"), Need("frobd", "frob-tools", "serves frobs")
    assert missing((first, again)) == (first,)


def test_file_is_a_sign_too(tmp_path: Path) -> None:
    wanted = (Need(f"{tmp_path}/gems/frob-*", "frob", "frobs"),)
    assert missing(wanted) == wanted
    (tmp_path / "gems/frob-1.0").mkdir(parents=True)
    assert missing(wanted) == ()


@pytest.mark.usefixtures("bare")
def test_without_apt_it_says_what_is_missing_why_and_how_to_get_it() -> None:
    wanted = (Need("frobnicate", "frob-tools", "frobs"), Need("twiddle", "twiddlers", "twiddles"))
    said: list[str] = []
    with pytest.raises(NotReady) as caught:
        install_missing(wanted, Quiet(), said.append)
    whats = [problem.what for problem in caught.value.problems]
    assert "frob-tools is not installed: it frobs" in whats
    assert "twiddlers is not installed: it twiddles" in whats
    assert all("package manager" in problem.hint for problem in caught.value.problems)
    assert said == []


@pytest.mark.usefixtures("bare")
def test_nothing_is_installed_where_nothing_is_missing(tmp_path: Path) -> None:
    said: list[str] = []
    install_missing((Need(str(tmp_path), "frob", "frobs"),), Quiet(), said.append)
    assert said == []


def test_the_vagrantfile_names_packages_of_the_list() -> None:
    """Ruby cannot ask it."""
    named = re.findall(r"apt-get install (?:--\S+ )*(.+)", (REPOSITORY / "Vagrantfile").read_text())
    assert named
    assert {name for line in named for name in line.split()} <= {need.package for need in needs.LIBVIRT}
