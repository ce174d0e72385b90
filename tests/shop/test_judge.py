from __future__ import annotations

from dataclasses import replace

import pytest

from tests.shop.stored import CREATED
from underlay.shop.judge import problems
from underlay.shop.parts import IMAGES
from underlay.shop.registry import Configuration, Entry, LayerFiles

_IMAGE = IMAGES[0]
_GOOD = Configuration(
    user="10001:10001",
    environment=("PATH=/usr/bin", "DATABASE_PASSWORD_FILE=/run/secrets/password"),
    labels={f"org.opencontainers.image.{name}": "x" for name in ("title", "description", "version", "licenses")},
    healthcheck=("CMD", "true"),
    created=CREATED,
)


def _layer(*entries: Entry) -> LayerFiles:
    return LayerFiles("sha256:0", 1, entries)


def _file(path: str, mode: int = 0o644, size: int = 1) -> Entry:
    return Entry(path, mode, uid=0, size=size)


def _said(entry: Entry) -> list[str]:
    return [problem.what for problem in problems(_IMAGE, _GOOD, [_layer(entry)])]


def test_a_good_image_has_no_problems() -> None:
    layer = _layer(
        Entry("tmp", 0o1777, 0, 0, directory=True),
        Entry("usr/bin/sh", 0o777, 0, 0, link=True),
        _file("usr/bin/python3.13", 0o755),
        _file("opt/shop/packages/multidict/__init__.py"),
        _file("usr/bin/basenc", 0o755),
        _file("opt/shop/services/__pycache__/x.cpython-313.pyc"),
    )
    assert problems(_IMAGE, _GOOD, [layer]) == []


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("usr/bin/cc", "a compiler"),
        ("usr/bin/x86_64-linux-gnu-gcc-14", "a compiler"),
        ("usr/bin/ld", "a compiler"),
        ("usr/bin/apt-get", "a package manager"),
        ("usr/local/bin/pip3.13", "a package manager"),
        ("opt/shop/packages/pip/__init__.py", "a package manager"),
        ("usr/lib/python3.13/ensurepip/__init__.py", "a package manager"),
        ("var/cache/apt/pkgcache.bin", "a cache"),
        ("var/lib/apt/lists/x", "a cache"),
        ("root/.cache/pip/x", "a cache"),
        ("wheels/x.whl", "a cache"),
        ("build/services.txt", "a cache"),
        ("etc/shadow", "a secret"),
        ("root/.pgpass", "a secret"),
        ("opt/shop/.git/config", "a secret"),
        ("etc/ssl/private/x.key", "a secret"),
        ("vagrant/context/services/Dockerfile", "a file of the machine that built"),
    ],
)
def test_what_must_not_be_in_an_image_is_found(path: str, what: str) -> None:
    assert f"{what} is in it: {path}" in _said(_file(path))


def test_a_key_is_found_by_what_it_holds() -> None:
    assert _said(replace(_file("etc/harmless"), key=True)) == ["a private key is in it: etc/harmless"]


@pytest.mark.parametrize("mode", [0o4755, 0o2755])
def test_special_rights_are_found(mode: int) -> None:
    assert _said(_file("usr/bin/su", mode)) == ["a program with its owner's rights is in it: usr/bin/su"]


def test_places_where_everybody_writes_are_found() -> None:
    directory = Entry("data", 0o777, 0, 0, directory=True)
    assert _said(directory) == ["a place where everybody writes is in it: data"]


def test_the_limit_is_of_all_layers() -> None:
    half = _layer(_file("a", size=_IMAGE.limit // 2 + 1))
    assert [problem.what for problem in problems(_IMAGE, _GOOD, [half, half])] == [
        "it has 105.0 MB, at most 105 are allowed"
    ]
    assert problems(_IMAGE, _GOOD, [half]) == []


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (replace(_GOOD, user=""), "it runs as root, expected 10001:10001"),
        (replace(_GOOD, user="0"), "it runs as 0, expected 10001:10001"),
        (replace(_GOOD, healthcheck=("NONE",)), "it has no health check"),
        (replace(_GOOD, labels={}), "it lacks the labels org.opencontainers.image.title"),
        (replace(_GOOD, environment=("DB_PASSWORD=x",)), "its environment holds a secret: DB_PASSWORD"),
        (replace(_GOOD, created="2026-01-01T00:00:00Z"), "it is dated 2026-01-01T00:00:00Z, expected 2025-10-09T08"),
    ],
)
def test_what_an_image_says_of_itself_is_looked_at(said: Configuration, what: str) -> None:
    found = problems(_IMAGE, said, [])
    assert len(found) == 1
    assert found[0].what.startswith(what)
    assert "services/Dockerfile" in found[0].hint


def test_a_long_list_is_cut() -> None:
    layer = _layer(*(_file(f"var/cache/{number}") for number in range(9)))
    assert "and 4 more" in problems(_IMAGE, _GOOD, [layer])[0].what
