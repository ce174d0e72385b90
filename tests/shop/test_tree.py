from __future__ import annotations

from pathlib import Path

from underlay.shop.parts import BASES
from underlay.shop.tree import finish


def _write(path: Path, text: str = "", mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def test_a_tree_gets_what_scripts_of_packages_would_have_made(tmp_path: Path) -> None:
    masters = tmp_path / "usr/share/base-passwd"
    _write(masters / "passwd.master", "root:*:0:0:root:/root:/bin/bash\nnobody:*:65534:65534::/:/usr/sbin/nologin\n")
    _write(masters / "group.master", "root:*:0:\n")
    _write(tmp_path / "usr/bin/dash", mode=0o755)
    _write(tmp_path / "usr/bin/passwd", mode=0o4755)
    _write(tmp_path / "etc/resolv.conf", "nameserver 192.0.2.1\n")
    _write(tmp_path / "usr/share/doc/dash/copyright", "licence")
    _write(tmp_path / "usr/share/doc/dash/changelog.gz")
    _write(tmp_path / "var/cache/apt/pkgcache.bin")
    _write(tmp_path / "usr/lib/x86_64-linux-gnu/libLLVM.so.19.1")
    (tmp_path / "usr/lib/llvm").symlink_to("x86_64-linux-gnu")

    finish(tmp_path, ("usr/share/base-passwd", "var/cache/*", "usr/lib/*-linux-gnu/libLLVM*", "usr/lib/llvm", "no*"))

    assert (tmp_path / "etc/passwd").read_text().splitlines()[0] == "root:x:0:0:root:/root:/bin/bash"
    assert (tmp_path / "etc/group").exists()
    assert (tmp_path / "etc/resolv.conf").read_text() == ""
    assert (tmp_path / "usr/bin/sh").readlink() == Path("dash")
    assert (tmp_path / "usr/bin/passwd").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / "usr/share/doc/dash/copyright").exists()
    assert not (tmp_path / "usr/share/doc/dash/changelog.gz").exists()
    assert list((tmp_path / "var/cache").iterdir()) == []
    assert not masters.exists()
    assert list((tmp_path / "usr/lib/x86_64-linux-gnu").iterdir()) == []
    assert not (tmp_path / "usr/lib/llvm").is_symlink()


def test_patterns_stay_below_the_tree() -> None:
    patterns = [pattern for base in BASES for pattern in (*base.all_dropped, *base.compiled)]
    assert [pattern for pattern in patterns if pattern.startswith("/") or ".." in pattern] == []
