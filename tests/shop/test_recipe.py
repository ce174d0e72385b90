from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from underlay.errors import InputError
from underlay.image.recipe import SOURCE_DATE_EPOCH
from underlay.repository import REPOSITORY
from underlay.shop import recipe
from underlay.shop.build import chains
from underlay.shop.parts import BASES, IMAGES, LIMIT, SERVICE_LIMIT, Image

_BY_NAME = {image.name: image for image in IMAGES}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the keys look at."""
    for folder in ("services", "underlay/shop", "underlay/image", "requirements"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=ignore)
    return tmp_path


def _keys(root: Path) -> tuple[str, str]:
    return recipe.supplies_key(root, "amd64"), recipe.shop_key(root, "amd64")


def test_every_input_counts(checkout: Path) -> None:
    before = _keys(checkout)
    assert _keys(checkout) == before
    for name in ("services/Dockerfile", "services/common/web.py", "services/edge/healthy.sh", "underlay/shop/build.py"):
        (checkout / name).write_text((checkout / name).read_text() + "\n")
        after = _keys(checkout)
        assert after[0] == before[0], f"{name} needs nothing else from the network"
        assert after[1] != before[1], name
        before = after


def test_what_the_network_gives_counts_for_both(checkout: Path) -> None:
    before = _keys(checkout)
    path = checkout / recipe.REQUIREMENTS
    path.write_text(path.read_text() + "\n")
    assert [new == old for new, old in zip(_keys(checkout), before, strict=True)] == [False, False]


def test_the_hosts_image_counts(checkout: Path) -> None:
    before = _keys(checkout)
    path = checkout / "underlay/image/packages.txt"
    path.write_text(path.read_text() + "htop\n")
    assert [new == old for new, old in zip(_keys(checkout), before, strict=True)] == [True, False]


def test_what_is_no_input_does_not_count(checkout: Path) -> None:
    before = _keys(checkout)
    for name in ("services/openapi.yaml", "services/edge/nginx.conf.template", "services/database/schema.sql"):
        (checkout / name).write_text("something else")  # mounted, not baked in
    (checkout / "services/common/__pycache__").mkdir()
    (checkout / "services/common/__pycache__/web.cpython-311.pyc").write_text("")
    assert _keys(checkout) == before


def test_a_missing_input_is_named(checkout: Path) -> None:
    (checkout / "services/cache/Dockerfile").unlink()
    with pytest.raises(InputError, match=r"services/cache/Dockerfile: an input .* cannot be read"):
        recipe.shop_key(checkout, "amd64")


def test_nothing_of_a_build_comes_over_the_network() -> None:
    commands = [recipe.base_argv(base, tag="t", materials="/m") for base in BASES]
    commands += [recipe.image_argv(image, tag="t", materials="/m", target="/a.tar") for image in IMAGES]
    for argv in commands:
        assert argv[argv.index("--network") + 1] == "none"
        assert argv[argv.index("--provenance") + 1] == "false"
        assert any("compression-level=1" in word for word in argv)


def test_a_service_is_built_from_its_bases_and_wheels() -> None:
    argv = recipe.image_argv(_BY_NAME["order"], tag="t", materials="/m", target="/a.tar")
    assert argv[-3:] == ("--file", "/m/context/services/Dockerfile", "/m/context")
    arguments = {argv[at + 1] for at, word in enumerate(argv) if word == "--build-arg"}
    assert arguments >= {
        "BASE=localhost:5000/underlay/base-python:t",
        "BUILDER=localhost:5000/underlay/base-python-build:t",
        "SERVICE=order",
        "USER_ID=10003",
    }
    assert "wheels=/m/wheels" in argv
    assert any("rewrite-timestamp=true" in word and "dest=/a.tar" in word for word in argv)
    assert "--build-context" not in recipe.image_argv(_BY_NAME["cache"], tag="t", materials="/m", target="/a.tar")


def test_the_time_is_fixed() -> None:
    assert recipe.build_environment() == {"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)}
    assert f"--mtime=@{SOURCE_DATE_EPOCH}" in recipe.pack_argv(Path("/t"), Path("/t.tar"))


def test_the_log_says_what_was_fetched() -> None:
    log = """\
Get:4 http://deb.debian.org/debian trixie/main amd64 Packages [9679 kB]
I: downloading packages with apt...
Get:3 http://deb.debian.org/debian trixie/main amd64 libc6 amd64 2.41-12+deb13u5 [2850 kB]
Get:9 http://deb.debian.org/debian trixie/main amd64 netbase all 6.5 [12.4 kB]
"""
    assert recipe.fetched_packages(log) == (("libc6", "2.41-12+deb13u5", "amd64"), ("netbase", "6.5", "all"))


def test_wheels_are_fetched_by_hash() -> None:
    argv = recipe.wheels_argv(python="python3", requirements=Path("r.txt"), target=Path("/w"), arch="amd64")
    assert argv[:4] == ("python3", "-m", "pip", "download")
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(argv)
    assert argv[argv.index("--dest") + 1] == "/w"


def test_each_image_has_its_dockerfile_and_a_user_of_its_own() -> None:
    assert [name for image in IMAGES if not (name := REPOSITORY / image.dockerfile).is_file()] == []
    assert len({image.user for image in IMAGES}) == len(IMAGES)
    assert {image.limit for image in IMAGES if image.base == "python"} == {SERVICE_LIMIT}
    assert {image.limit for image in IMAGES if image.base != "python"} == {LIMIT}


def test_images_are_built_after_what_they_stand_on() -> None:
    built: list[str] = []
    for chain in chains():
        own: list[str] = []
        for part in chain:
            own.append(part.repository)
            if part in IMAGES:
                image = _BY_NAME[part.name]
                needed = {image.base, image.builder or image.base}
                assert {f"underlay/base-{name}" for name in needed} <= set(own)
        built += own
    assert sorted(built) == sorted(part.repository for part in (*BASES, *IMAGES))


def test_only_what_the_recipe_names_is_in_the_context() -> None:
    names = {str(path) for path in recipe.context_files(REPOSITORY)}
    assert {"services/Dockerfile", "services/Dockerfile.dockerignore", "services/common/healthy.py"} <= names
    assert {name for name in names if not name.startswith("services/")} == {str(recipe.REQUIREMENTS)}


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_dockerfiles_need_no_network(image: Image) -> None:
    text = (REPOSITORY / image.dockerfile).read_text()
    assert not text.startswith("# syntax")  # it would be fetched
    assert "USER 0:0" in text  # BuildKit of Docker 26 finds no user called 0 or root before a RUN
    assert text.count("HEALTHCHECK") == 1
    assert text.rindex("\nUSER ${USER_ID}:${USER_ID}") > text.rindex("\nFROM ")
