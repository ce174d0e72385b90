from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from tests.plans import shop
from underlay.errors import NotReady
from underlay.hosts.namespace import boot, power
from underlay.hosts.namespace.launch import Order
from underlay.hosts.namespace.preflight import filesystem_of
from underlay.mountinfo import parse
from underlay.topology import Plan

PLAN = shop.plan()
IMAGE, REPOSITORY = Path("/image"), Path("/repository")
MOUNTS = parse(b"""\
27 1 254:0 / / rw - overlay overlay rw
60 27 254:1 / /var/lib rw - ext4 /dev/vdb rw
61 60 0:40 / /var/lib/a\\040b rw - tmpfs tmpfs rw
62 60 0:41 / /var/lib/a\\040b rw - xfs /dev/vdc rw
""")


def digests(plan: Plan) -> list[str]:
    return [power.host_digest(plan, host, IMAGE, REPOSITORY) for host in plan.hosts]


def test_an_order_reads_back_as_it_was_written() -> None:
    spec = boot.Spec(
        host="host1",
        lower="/image",
        directory="/state/host1",
        repository="/repository",
        repository_at="/vagrant",
        groups=(boot.Group("/sys/fs/cgroup/cpu,cpuacct/x", "cpu,cpuacct", ("cpu", "cpuacct"), ""),),
        files=(boot.File("/etc/hostname", 0o644, "host1\n"),),
        environment={"PATH": "/bin"},
        command=("/usr/bin/supervisord", "-n"),
    )
    order = Order(spec, power.cable(PLAN, PLAN.host("host1"), Path("/run/x/net")), os.getpid(), 2.5)
    assert Order.from_json(order.to_json()) == order


def test_a_host_is_plugged_in_as_planned() -> None:
    cable = power.cable(PLAN, PLAN.host("host2"), Path("/run/x/net"))
    assert (cable.port, cable.address, cable.gateway, cable.mtu) == (
        "v-host2",
        "192.168.56.12/24",
        "192.168.56.1",
        1500,
    )


def test_a_host_starts_again_when_its_neighbours_wire_image_or_repository_change() -> None:
    now = digests(PLAN)
    moved = replace(PLAN.hosts[1], address=IPv4Interface("192.168.56.13/24"))
    others = [
        digests(replace(PLAN, hosts=(PLAN.hosts[0], moved))),
        digests(replace(PLAN, underlay=replace(PLAN.underlay, mtu=1400))),
        digests(replace(PLAN, domain="other.internal")),
        [power.host_digest(PLAN, host, Path("/image2"), REPOSITORY) for host in PLAN.hosts],
        [power.host_digest(PLAN, host, IMAGE, Path("/repository2")) for host in PLAN.hosts],
    ]
    for other in others:
        assert not set(now) & set(other)


def test_a_host_runs_on_when_only_the_shop_changes() -> None:
    assert digests(replace(PLAN, services=(), flows=(), published=())) == digests(PLAN)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("file=/var/run/supervisor.sock   ; (the path)", "/run/supervisor.sock"),
        ("file=/run/underlay/s.sock", "/run/underlay/s.sock"),
        ("file=/var/lib/s.sock", "/var/lib/s.sock"),
    ],
)
def test_the_supervisors_socket_is_read_from_the_image(tmp_path: Path, line: str, expected: str) -> None:
    (tmp_path / "etc/supervisor").mkdir(parents=True)
    text = f"[unix_http_server]\n{line}\n[supervisord]\nlogfile=/var/log/%(x)s.log\n"
    (tmp_path / "etc/supervisor/supervisord.conf").write_text(text)
    assert power.supervisor_socket(tmp_path) == expected


def test_an_image_without_a_supervisor_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"the image has no usable /etc/supervisor/supervisord\.conf"):
        power.supervisor_socket(tmp_path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home", "overlay"),
        ("/var/lib", "ext4"),
        ("/var/lib/x", "ext4"),
        ("/var/lib/a b/c", "xfs"),
        ("/var/li", "overlay"),
    ],
)
def test_the_filesystem_of_a_path_is_that_of_the_nearest_latest_mount(path: str, expected: str) -> None:
    assert filesystem_of(MOUNTS, Path(path)) == expected


def test_a_failed_step_is_told_in_words() -> None:
    with pytest.raises(boot.StepError, match=r"^look: No such file or directory \(/nowhere\)$"), boot.step("look"):
        Path("/nowhere").stat()
