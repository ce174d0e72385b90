"""What a container may write, what is kept of what it says, and what the registry and its certificate allow."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from acceptance.modules import LabHost
from acceptance.phase2.stage import DATA, ROOM, SETTINGS, InContainers
from acceptance.suite.stage import Seat
from underlay.topology import Program
from underlay.topology.docker import REGISTRY_PORT

#: Of the place in memory: its size, and who may come in.
_ROOM_OPTIONS = {"size=16384k", "mode=700"}
#: What the container runtime mounts for every container, writable for root, whose rights it has not.
_OF_RUNTIME = ("/proc", "/dev", "/sys/fs/cgroup")
_REGISTRY = f"{SETTINGS}/registry"


def _mounts(stage: InContainers, seat: Seat) -> Mapping[str, tuple[set[str], set[str]]]:
    """Return the options of each mount, and of what is mounted there, as the kernel says (proc_pid_mountinfo(5))."""
    text = stage.machine(seat).run(["cat", f"/proc/{stage.process(seat)}/mountinfo"]).stdout
    found = {}
    for line in text.splitlines():
        place, _, kind = line.partition(" - ")
        found[place.split()[4]] = (set(place.split()[5].split(",")), set(kind.split()[2].split(",")))
    return found


def test_container_writes_in_its_place_in_memory_and_nowhere_else(containers: InContainers, seat: Seat) -> None:
    """The root, settings and secrets are read-only; a database has its data besides."""
    mounts = _mounts(containers, seat)
    wanted = {ROOM} | ({DATA} if seat.service.program is Program.POSTGRES else set())
    seen = {path for path, (own, _) in mounts.items() if "rw" in own and not path.startswith(_OF_RUNTIME)}
    assert seen == wanted, f"{seat.host}/{seat.name}: expected: it may write {wanted}; seen: {seen}"
    _, options = mounts[ROOM]
    private = _ROOM_OPTIONS | {f"uid={containers.user(seat)}"}
    assert private <= options, f"{seat.host}/{seat.name}: {ROOM}: expected: {private}; seen: {options}"


def test_little_is_kept_of_what_a_container_says(containers: InContainers, seat: Seat) -> None:
    said = containers.inspect([seat.name])[seat.name] or {}
    config = said.get("HostConfig")
    seen = config.get("LogConfig") if isinstance(config, Mapping) else None
    wanted = {"Type": "json-file", "Config": {"max-file": "2", "max-size": "1m"}}
    assert seen == wanted, f"{seat.host}/{seat.name}: expected: {wanted}; seen: {seen}"


@pytest.fixture
def registry(containers: InContainers) -> LabHost:
    """Return the host that the registry is on."""
    name = containers.containers.host
    if name is None:
        pytest.skip("the plan has no containers")
    return LabHost(containers.lab.hosts[name], containers.plan)


def test_registry_takes_nothing_and_speaks_to_nobody_without_tls(registry: LabHost) -> None:
    name, trusted = registry.machine.name, f"/etc/docker/certs.d/{registry.machine.name}:{REGISTRY_PORT}/ca.crt"
    place = f"{name}:{REGISTRY_PORT}/v2"
    code = "curl --silent --output /dev/null --write-out %%{http_code} "
    read = registry.check_output(code + "--cacert %s https://%s/", trusted, place)
    written = registry.check_output(code + "--cacert %s --request POST https://%s/a/blobs/uploads/", trusted, place)
    clear = registry.run(code + "http://%s/", place).stdout
    assert read == "200", f"{name}: expected: whoever trusts the authority reads, 200; seen: {read}"
    assert written == "405", f"{name}: expected: a write is not allowed, 405; seen: {written}"
    assert clear == "400", f"{name}: expected: nothing without TLS, 400; seen: {clear}"
    untrusted = registry.run("curl --silent https://%s/", place)
    assert untrusted.rc == 60, f"{name}: expected: who does not know the authority says so, 60; seen: {untrusted.rc}"


def test_registry_listens_at_the_hosts_address_alone(registry: LabHost) -> None:
    seen = registry.check_output("ss --listening --no-header --numeric --tcp sport = :%s", str(REGISTRY_PORT)).split()
    wanted = f"{registry.machine.address}:{REGISTRY_PORT}"
    assert wanted in seen, f"{registry.machine.name}: expected: {wanted}; seen: {seen}"
    others = [word for word in seen if word.endswith(f":{REGISTRY_PORT}") and word != wanted]
    assert not others, f"{registry.machine.name}: expected: {wanted} alone; seen besides: {others}"


def test_registry_has_a_key_of_its_own_with_which_nothing_can_be_signed(registry: LabHost) -> None:
    name = registry.machine.name
    authority = f"/etc/docker/certs.d/{name}:{REGISTRY_PORT}/ca.crt"
    own = registry.check_output("openssl pkey -in %s/host.key -pubout", _REGISTRY)
    of_paper = registry.check_output("openssl x509 -in %s/host.crt -noout -pubkey", _REGISTRY)
    of_authority = registry.check_output("openssl x509 -in %s -noout -pubkey", authority)
    assert own == of_paper, f"{name}: expected: the certificate is of the key beside it; seen: {of_paper}"
    assert own != of_authority, f"{name}: expected: a key of its own; seen: the authority's"
    registry.check_output("openssl verify -CAfile %s -verify_hostname %s %s/host.crt", authority, name, _REGISTRY)
    rights = registry.check_output("openssl x509 -in %s/host.crt -noout -ext basicConstraints", _REGISTRY)
    assert "CA:FALSE" in rights, f"{name}: expected: a certificate that signs nothing, CA:FALSE; seen: {rights}"


def test_name_servers_are_not_root(registry: LabHost) -> None:
    users = set(registry.check_output("ps -C dnsmasq -o user=").split())
    assert users == {"dnsmasq"}, f"{registry.machine.name}: expected: dnsmasq; seen: {users or 'none runs'}"
