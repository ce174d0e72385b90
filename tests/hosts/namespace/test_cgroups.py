from __future__ import annotations

from pathlib import Path

import pytest

from underlay.hosts.namespace.cgroups import Hierarchy, hierarchies, in_group, lab_directories, lab_group, members
from underlay.hosts.namespace.state import RUN_VARIABLE
from underlay.mountinfo import parse

V2 = """\
24 30 0:22 / /proc rw,nosuid shared:12 - proc proc rw
35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""
V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
34 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
HYBRID = (
    V1 + "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:3 master:2 - cgroup2 cgroup2 rw\n"
    "50 1 0:38 / /mnt/again rw,relatime - cgroup2 cgroup2 rw\n"
    "51 1 0:31 / /mnt/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
)
TOP = Path("/sys/fs/cgroup")
FIRST = (
    Hierarchy(TOP / "cpu,cpuacct", 1, "cpu,cpuacct", ("cpu", "cpuacct")),
    Hierarchy(TOP / "cpuset", 1, "cpuset"),
    Hierarchy(TOP / "systemd", 1, "systemd"),
)


@pytest.mark.parametrize(
    ("mountinfo", "expected"),
    [
        pytest.param("", (), id="none"),
        pytest.param(V2, (Hierarchy(TOP, 2, ""),), id="v2"),
        pytest.param(V1, FIRST, id="v1"),
        pytest.param(HYBRID, (*FIRST, Hierarchy(TOP / "unified", 2, "unified")), id="hybrid"),
        pytest.param(
            "9 8 0:9 / /a\\040b/cg rw - cgroup2 none rw\n", (Hierarchy(Path("/a b/cg"), 2, ""),), id="space in the path"
        ),
    ],
)
def test_hierarchies_are_read_from_mountinfo(mountinfo: str, expected: tuple[Hierarchy, ...]) -> None:
    assert hierarchies(parse(mountinfo.encode())) == expected


def test_a_lab_has_one_directory_in_each_hierarchy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUN_VARIABLE)
    assert lab_directories("shop", FIRST) == (
        TOP / "cpu,cpuacct/underlay-shop",
        TOP / "cpuset/underlay-shop",
        TOP / "systemd/underlay-shop",
    )


@pytest.mark.parametrize(
    ("cgroup", "group", "expected"),
    [
        ("0::/underlay-shop/host1\n", "underlay-shop", True),
        ("0::/underlay-shop/host1/docker/ab12\n", "underlay-shop/host1", True),
        ("9:pids:/\n4:memory:/../underlay-shop/host1\n0::/\n", "underlay-shop/host1", True),
        ("0::/underlay-shop-2/host1\n", "underlay-shop", False),
        ("0::/underlay-shop/host10\n", "underlay-shop/host1", False),
        ("0::/user.slice\n", "underlay-shop", False),
        ("", "underlay-shop", False),
    ],
)
def test_membership_is_by_whole_names(cgroup: str, group: str, expected: bool) -> None:
    assert in_group(cgroup, group) is expected


def test_members_are_found_at_every_depth_and_never_pid_0(tmp_path: Path) -> None:
    lab = tmp_path / lab_group("shop")
    (lab / "host1/docker/ab12").mkdir(parents=True)
    (lab / "host2").mkdir()
    (lab / "host1/cgroup.procs").write_text("11\n12\n")
    (lab / "host1/docker/ab12/cgroup.procs").write_text("0\n13\n")
    assert members([lab, tmp_path / "missing"]) == {11, 12, 13}
    assert members([lab / "host2"]) == frozenset()
