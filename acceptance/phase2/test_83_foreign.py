"""Something of somebody else's is in the way, or something is missing: it is named, left alone, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from acceptance.phase2.moments import healthy
from acceptance.phase2.stage import SETTINGS, InContainers, emptied
from acceptance.provisioning import provision
from acceptance.suite.stage import Seat
from acceptance.traffic import Listener
from underlay.errors import Exit
from underlay.hosts.base import Host
from underlay.topology import Program

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

_MANIFEST = "/srv/underlay/shop/manifest.json"
_STRANGER = "stranger"


@pytest.fixture
def victim(containers: InContainers) -> Iterator[Seat]:
    """Lend a cache; all is as planned again afterwards."""
    found = next((seat for seat in containers.seats() if seat.service.program is Program.REDIS), None)
    if found is None:
        pytest.skip("the plan has no cache")
    yield found
    host = containers.machine(found)
    report = provision(host, "converge", containers.phase)
    assert report.exit_code == 0, f"{host.name}: expected: whole again; seen: {report}"
    healthy(containers, containers.plan.timeouts.ready)


def _assert_left_alone(host: Host, phase: str, resource: str, remedy: str) -> None:
    """Fail unless a thing in the way is named by check and by converge, with the command that takes it away."""
    found = provision(host, "check", phase)
    assert found.exit_code == Exit.CHECK_FAILED, f"{host.name}: expected: check fails; seen: {found}"
    assert remedy in found.remedies.get(resource, ""), f"{host.name}: expected: {resource}: {remedy}; seen: {found}"
    tried = provision(host, "converge", phase)
    assert tried.exit_code == Exit.NOT_READY, f"{host.name}: expected: it is left alone; seen: {tried}"
    assert remedy in tried.output, f"{host.name}: expected: {remedy} is advised; seen: {tried}"


def test_container_of_somebody_elses_with_our_name_is_left_alone(containers: InContainers, victim: Seat) -> None:
    host = containers.machine(victim)
    image = host.run(["docker", "inspect", "--format", "{{.Config.Image}}", victim.name]).stdout.strip()
    host.run(["docker", "rm", "--force", victim.name])
    try:
        words = ["--name", victim.name, "--network", "none", "--no-healthcheck", "--entrypoint", "sleep", image]
        theirs = host.run(["docker", "run", "--detach", "--pull", "never", *words, "infinity"]).stdout.strip()
        _assert_left_alone(host, containers.phase, f"container {victim.name}", f"docker rm --force {victim.name}")
        still = host.run(["docker", "inspect", "--format", "{{.Id}} {{.State.Running}}", victim.name]).stdout.strip()
        assert still == f"{theirs} true", f"{host.name}: expected: theirs runs on, {theirs}; seen: {still}"
    finally:
        host.run(["docker", "rm", "--force", victim.name])


def test_network_of_somebody_elses_on_our_subnet_is_left_alone(containers: InContainers, victim: Seat) -> None:
    host, network = containers.machine(victim), f"shop_{victim.tier.name}"
    host.run(["sh", "-e", "-c", f"{emptied(network)}\ndocker network rm {network}"])
    try:
        host.run(["docker", "network", "create", "--subnet", str(victim.tier.subnet), _STRANGER])
        _assert_left_alone(host, containers.phase, f"Docker network {network}", f"docker network rm {_STRANGER}")
        assert host.run(["docker", "network", "inspect", _STRANGER], check=False).ok, (
            "expected: it is there; it is gone"
        )
    finally:
        host.run(["docker", "network", "rm", _STRANGER])


def test_network_of_somebody_elses_with_our_name_is_left_alone(containers: InContainers, victim: Seat) -> None:
    host, network = containers.machine(victim), f"shop_{victim.tier.name}"
    host.run(["sh", "-e", "-c", f"{emptied(network)}\ndocker network rm {network}"])
    try:
        theirs = host.run(["docker", "network", "create", network]).stdout.strip()
        _assert_left_alone(host, containers.phase, f"Docker network {network}", f"docker network rm {network}")
        still = host.run(["docker", "network", "inspect", "--format", "{{.Id}}", network]).stdout.strip()
        assert still == theirs, f"{host.name}: expected: theirs, {theirs}; seen: {still}"
    finally:
        host.run(["docker", "network", "rm", network])


def test_volume_of_somebody_elses_with_our_name_is_left_alone(containers: InContainers, victim: Seat) -> None:
    host = containers.machine(victim)
    database = next((seat for seat in containers.seats() if seat.service.program is Program.POSTGRES), None)
    if database is None:
        pytest.skip("the plan has no database")
    volume = f"shop_{database.name}"
    host.run(["docker", "rm", "--force", database.name])
    host.run(["docker", "volume", "rm", volume])
    try:
        host.run(["docker", "volume", "create", "--label", "whose=theirs", volume])
        _assert_left_alone(host, containers.phase, f"Docker volume {volume}", f"docker volume rm {volume}")
        label = '{{index .Labels "whose"}}'
        seen = host.run(["docker", "volume", "inspect", "--format", label, volume]).stdout.strip()
        assert seen == "theirs", f"{host.name}: expected: theirs is there; seen: {seen}"
    finally:
        host.run(["docker", "volume", "rm", volume])


def test_port_that_somebody_has_taken_is_named(containers: InContainers, victim: Seat) -> None:
    host, entry = containers.machine(victim), containers.plan.published[0]
    (edge, *_) = (seat for seat in containers.seats() if seat.service.name == entry.service)
    host.run(["docker", "rm", "--force", edge.name])
    with containers.prober(host.name).listening([Listener("tcp", port=entry.port)]):
        tried = provision(host, "converge", containers.phase)
    assert tried.exit_code == Exit.NOT_READY, f"{host.name}: expected: it cannot be had; seen: {tried}"
    assert str(entry.port) in tried.output, f"{host.name}: expected: port {entry.port} is named; seen: {tried}"


def test_images_that_are_not_there_are_asked_for(containers: InContainers, victim: Seat) -> None:
    host = containers.machine(victim)
    host.run(["mv", _MANIFEST, f"{_MANIFEST}.away"])
    try:
        tried = provision(host, "converge", containers.phase)
    finally:
        host.run(["mv", f"{_MANIFEST}.away", _MANIFEST])
    assert tried.exit_code == Exit.NOT_READY, f"{host.name}: expected: not in a state to answer; seen: {tried}"
    assert "the shop's images are not on this host" in tried.output, f"{host.name}: expected: says why; seen: {tried}"


def test_full_disk_is_named_and_nothing_is_lost(containers: InContainers, victim: Seat) -> None:
    """What is written into takes one page; what was there is there again afterwards."""
    host = containers.machine(victim)
    host.run(["mount", "-t", "tmpfs", "-o", "size=4k,mode=755", "none", SETTINGS])
    try:
        tried = provision(host, "converge", containers.phase)
    finally:
        host.run(["umount", SETTINGS])
    assert tried.exit_code == Exit.NOT_READY, f"{host.name}: expected: not in a state to answer; seen: {tried}"
    for word in ("No space left on device", SETTINGS, "hint"):
        assert word in tried.output, f"{host.name}: expected: {word!r} is said; seen: {tried}"
