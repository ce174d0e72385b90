from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from provision import marks
from provision.host import receive
from tests.apart import Places
from underlay.errors import InputError
from underlay.hosts import layout
from underlay.hosts.vagrant import labs as vagrant
from underlay.image import pythonenv, recipe
from underlay.repository import REPOSITORY


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """All that a key is made of, copied from this checkout."""
    for path in ("underlay/image", "requirements"):
        shutil.copytree(REPOSITORY / path, tmp_path / path, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def _key(root: Path) -> str:
    return recipe.image_key(root, "amd64")


def test_key_is_that_of_the_inputs_not_of_the_place(checkout: Path) -> None:
    assert _key(checkout) == _key(REPOSITORY)
    assert _key(checkout) != recipe.image_key(checkout, "arm64")


@pytest.mark.parametrize(
    "changed",
    [
        recipe.REQUIREMENTS,
        recipe.FILES_BEFORE / "etc/postgresql-common/createcluster.conf",
        recipe.FILES_AFTER / "etc/supervisor/supervisord.conf",
        Path("underlay/image/customise.py"),
    ],
    ids=str,
)
def test_key_changes_with_a_file(checkout: Path, changed: Path) -> None:
    before = _key(checkout)
    with (checkout / changed).open("a") as stream:
        stream.write("# more\n")
    assert _key(checkout) != before


def test_key_changes_with_a_new_file_and_with_its_mode(checkout: Path) -> None:
    before = _key(checkout)
    script = checkout / recipe.FILES_AFTER / "usr/local/bin/hello"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    plain = _key(checkout)
    script.chmod(0o755)
    assert len({before, plain, _key(checkout)}) == 3


def test_key_changes_with_packages_but_not_with_words_about_them(checkout: Path) -> None:
    before = _key(checkout)
    packages = checkout / recipe.PACKAGES
    packages.write_text(f"# why\n\n{packages.read_text()}")
    assert _key(checkout) == before
    packages.write_text(f"{packages.read_text()}cowsay\n")
    assert _key(checkout) != before


def test_missing_input_is_named(checkout: Path) -> None:
    (checkout / recipe.REQUIREMENTS).unlink()
    with pytest.raises(InputError, match=r"requirements/image\.txt: an input of the image cannot be read"):
        _key(checkout)


def test_packages_are_sorted_and_made_for_the_architecture() -> None:
    text = "# why\nzstd\nlinux-image-cloud-@ARCH@  # a kernel\n\nless\n"
    assert recipe.parse_packages(text, "arm64") == ("less", "linux-image-cloud-arm64", "zstd")


def test_all_mistakes_of_a_package_list_are_told() -> None:
    with pytest.raises(InputError) as caught:
        recipe.parse_packages("less\nBad Name\nless\n--option\n", "amd64", "packages.txt")
    assert [problem.where for problem in caught.value.problems] == [
        "packages.txt:2",
        "packages.txt:3",
        "packages.txt:4",
    ]
    assert "line 1" in caught.value.problems[1].what


def test_an_empty_package_list_is_a_mistake() -> None:
    with pytest.raises(InputError, match="no package is named"):
        recipe.parse_packages("# nothing\n", "amd64")


def test_no_mirror_is_named() -> None:
    argv = recipe.mmdebstrap_argv(
        target=Path("/t"), packages=("less", "zstd"), arch="amd64", files_before=Path("/a b"), log=Path("/log")
    )
    assert argv[-2:] == (recipe.SUITE, "/t")
    assert "--include=less,zstd" in argv
    assert "--essential-hook=sync-in '/a b' /" in argv


def test_wheels_are_for_the_image_and_checked() -> None:
    argv = recipe.pip_argv(python="python3", requirements=Path("r.txt"), target=Path("/t"), arch="arm64")
    assert "manylinux_2_28_aarch64" in argv
    assert "cp313" in argv
    assert "--require-hashes" in argv


def test_every_requirement_is_pinned_with_a_hash_and_names_no_place() -> None:
    text = (REPOSITORY / recipe.REQUIREMENTS).read_text()
    pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert pins
    assert all("==" in line and line.endswith("\\") for line in pins)
    assert "://" not in text
    assert "index-url" not in text.replace("--no-emit-index-url", "")


def test_compiled_modules_are_found_where_hosts_keep_theirs(tmp_path: Path) -> None:
    source = tmp_path / f"usr/lib/python{recipe.PYTHON_VERSION}/json"
    (source / "__pycache__").mkdir(parents=True)
    (source / "__pycache__/tool.cpython-313.pyc").write_bytes(b"compiled")
    pythonenv.share_compiled(tmp_path)
    name = f"usr/lib/python{recipe.PYTHON_VERSION}/json/tool.cpython-313.pyc"
    link = tmp_path / pythonenv.CACHE.relative_to("/") / name
    assert link.readlink() == Path(
        "/usr/lib", f"python{recipe.PYTHON_VERSION}", "json/__pycache__/tool.cpython-313.pyc"
    )


def test_every_room_means_the_same_places_of_a_host(apart: Places) -> None:
    """Rooms that may not know each other, and Vagrant's language, each have to write them down."""
    vagrantfile = (REPOSITORY / "Vagrantfile").read_text()
    assert str(pythonenv.CACHE) == layout.PYTHON_CACHE
    assert f"PYTHONPYCACHEPREFIX={layout.PYTHON_CACHE} " in vagrantfile
    assert layout.PATH.startswith(f"{pythonenv.HOME}/bin:")
    assert f"PATH={pythonenv.HOME}/bin:$PATH" in vagrantfile
    assert f"cd {layout.REPOSITORY} && " in vagrantfile
    assert {str(receive.SETTINGS)} == {str(Path(path).parent) for path in (layout.SECRET_FILE, layout.PLAN_FILE)}
    assert str(marks.Places().shop) == layout.SHOP_DIRECTORY
    assert vagrant.handover_directory().relative_to(apart.repository) == receive.HANDOVER.relative_to(REPOSITORY)
