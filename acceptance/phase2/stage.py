"""Where things are in Phase 2: each replica in a container of its name, all on one host, at Docker's addresses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from acceptance.provisioning import PROGRAM, phases_on
from acceptance.suite.cases import Visit
from acceptance.suite.stage import Member, Seat, Stage, members
from acceptance.traffic import NAME_ERROR, NO_ERROR, SERVER_FAILED, Outcome
from underlay.hosts.base import Host, Lab
from underlay.topology import Containers, Plan, Program, Tier, in_containers

if TYPE_CHECKING:
    from acceptance.suite.knocking import Knocking

SETTINGS = "/etc/underlay/phase2"
#: Where Docker keeps what it has.
_DISK = "/var/lib/docker"
#: The user of Debian's docker-registry.
_REGISTRY = "docker-registry"
#: Kinds of records that Docker's name server answers for by itself (moby, daemon/libnetwork/resolver.go).
_KNOWN_TO_BE_NONE = frozenset({"AAAA", "MX"})
#: Where Docker answers for names in every container (https://docs.docker.com/engine/network/#dns-services).
_RESOLVER = IPv4Address("127.0.0.11")
#: The only place in which a container writes, and where a database keeps its data.
ROOM, DATA = "/run/shop", "/var/lib/shop/postgresql"
#: Shows a process's files of names in place of the host's, in mounts of its own: to a program in its network.
_ENTER = """
mount -t tmpfs none /mnt
root=/proc/$1/root
for name in resolv.conf hosts; do
    cp "$root/etc/$name" /mnt
    mount --bind "/mnt/$name" "/etc/$name"
done
shift
exec nsenter "$@"
"""
#: The users that the images run as (docs/images.md), by program.
_USERS = {
    Program.GATEWAY: "10001",
    Program.PRODUCT: "10002",
    Program.ORDER: "10003",
    Program.NGINX: "10004",
    Program.REDIS: "10005",
    Program.POSTGRES: "10006",
}


class InContainers(Stage):
    """Containers of one Compose project."""

    deny_chain = "PHASE2-DENY"
    # The address of a stopped container is nobody's: nothing refuses, and nothing answers.
    without_gateways = 504
    secrets = (f"{SETTINGS}/secrets", f"{SETTINGS}/registry/host.key", "/etc/underlay/secret")

    def __init__(self, lab: Lab, phase: str) -> None:
        super().__init__(lab, phase)
        #: What came of the knocking while the phase was taken away and made again, if it was.
        self.knocked: list[Knocking] = []

    @staticmethod
    def laid_out(plan: Plan) -> Plan:
        """Return the plan as Docker has it."""
        return in_containers(plan).plan

    @property
    def containers(self) -> Containers:
        """What Docker has of the plan."""
        return in_containers(self.lab.plan)

    def seat(self, member: Member) -> Seat:
        """Return where a replica is: its network namespace is another one after each start."""
        return self._seats([member])[0]

    def seats(self, host: str | None = None) -> tuple[Seat, ...]:
        """Return where all replicas are, asked at once."""
        if host not in (None, self.containers.host):
            return ()
        return self._seats(list(members(self.plan)))

    def _seats(self, wanted: Sequence[Member]) -> tuple[Seat, ...]:
        host = self.containers.host
        if host is None:
            return ()
        said = self.inspect([member.name for member in wanted])
        return tuple(
            Seat(member, host, f"/proc/{_pid(said[member.name])}/ns/net", member.replica.ip) for member in wanted
        )

    def inspect(self, names: Sequence[str]) -> Mapping[str, Mapping[str, object] | None]:
        """Return what Docker says of containers, by name; None of those that are not there."""
        host = self.containers.host
        assert host is not None, "expected: a plan with services; seen: nobody has a container"
        done = self.lab.hosts[host].run(["python3", "-m", "acceptance.containers"], stdin=json.dumps(list(names)))
        found: Mapping[str, Mapping[str, object] | None] = json.loads(done.stdout)
        return found

    def enter(self, seat: Seat) -> Sequence[str]:
        """Return the words that enter the network of a container, with the two files of names that it has.

        In its own mounts there are none of the host's programs.
        """
        return self.enter_process(int(seat.space.split("/")[2]))

    @staticmethod
    def enter_process(pid: int) -> Sequence[str]:
        """Return the same words for a container's process, whosever container it is."""
        return ("unshare", "--mount", "sh", "-ec", _ENTER, "sh", str(pid), f"--net=/proc/{pid}/ns/net")

    def process(self, seat: Seat) -> int:
        """Return the number, on the host, of a container's first process."""
        return _pid(self.inspect([seat.name])[seat.name])

    def resolver(self, seat: Seat) -> IPv4Address:
        """Return Docker's own name server, which every container has at the same address."""
        return _RESOLVER

    def names(self, seat: Seat) -> Mapping[str, frozenset[IPv4Address]]:
        """Return the names of those at home in the networks that a replica is in: of services, and of each replica."""
        containers, found = self.containers, dict[str, frozenset[IPv4Address]]()
        tiers = {item.tier for item in containers.attachments[seat.name]}
        for service in self.plan.services:
            if service.tier in tiers:
                all_of_it = frozenset(item.ip for item in service.replicas)
                found |= {service.name: all_of_it, f"{service.name}.{self.plan.domain}": all_of_it}
                for item in service.replicas:
                    found[f"{item.name}.{self.plan.domain}"] = frozenset({item.ip})
                    if len(self._shared(seat.name, item.name)) == 1:
                        found[item.name] = frozenset({item.ip})
        return found

    def _shared(self, one: str, other: str) -> frozenset[str]:
        """Return the networks that two containers are both in: the other's own name means any of its addresses."""
        networks = self.containers.attachments
        return frozenset({item.tier for item in networks[one]} & {item.tier for item in networks[other]})

    def user(self, seat: Seat) -> str:
        """Return the number of the user of the image."""
        return _USERS[seat.service.program]

    def secret(self, seat: Seat) -> str:
        """Return the file of the service's password, on the host."""
        return f"{SETTINGS}/secrets/{seat.service.name}"

    def lacking(self, seat: Seat, kind: str) -> int:
        """Return what is said of records of another kind: those that Docker knows to be none, or whom it asks says."""
        return NO_ERROR if kind in _KNOWN_TO_BE_NONE else self.unknown(seat)[0]

    def keepers(self, host: str) -> frozenset[str]:
        """Return the database's user besides, which sets the passwords of all roles; and the registry's, with a key."""
        databases = (seat for seat in self.seats(host) if seat.service.program is Program.POSTGRES)
        return super().keepers(host) | {_REGISTRY, *(self.user(seat) for seat in databases)}

    def superusers(self, seat: Seat) -> frozenset[str]:
        """Return the image's user: root in a container has no rights."""
        return frozenset({self.user(seat)})

    def become(self, seat: Seat, user: str) -> Sequence[str]:
        """Return the words of docker-exec(1)."""
        return ("docker", "exec", "--interactive", "--user", user if user == "root" else f"{user}:{user}", seat.name)

    def room(self, seat: Seat) -> frozenset[str]:
        """Return what a container may write in: on the host it is nowhere."""
        return frozenset()

    def stop(self, seat: Seat) -> None:
        """Have Docker stop it."""
        self.machine(seat).run(["docker", "stop", seat.name])

    def start(self, seat: Seat) -> None:
        """Have Docker start it."""
        self.machine(seat).run(["docker", "start", seat.name])

    @contextmanager
    def held(self, seats: Sequence[Seat]) -> Iterator[Sequence[Seat]]:
        """Lend containers that only sleep, at the addresses of the stopped ones: these have no network meanwhile."""
        with ExitStack() as stack:
            with ThreadPoolExecutor(len(seats)) as pool:
                for seat in seats:
                    stack.callback(self.machine(seat).run, ["docker", "rm", "--force", _asleep(seat)])
                list(pool.map(self._sleep, seats))
            said = self.inspect([_asleep(seat) for seat in seats])
            yield [replace(seat, space=f"/proc/{_pid(said[_asleep(seat)])}/ns/net") for seat in seats]

    def _sleep(self, seat: Seat) -> None:
        native, *others = self.containers.attachments[seat.name]
        image = self.inspect([seat.name])[seat.name]
        config = image.get("Config") if image else None
        assert isinstance(config, Mapping), f"{seat.host}: expected: a container {seat.name}; seen: none"
        run = self.machine(seat).run
        run(["docker", "run", "--detach", "--pull", "never", "--name", _asleep(seat), "--entrypoint", "sleep",
             "--no-healthcheck", "--network", f"shop_{native.tier}", "--ip", str(native.address.ip),
             str(config["Image"]), "infinity"])  # fmt: skip
        for item in others:
            run(["docker", "network", "connect", "--ip", str(item.address.ip), f"shop_{item.tier}", _asleep(seat)])

    @contextmanager
    def watching(self, host: Host) -> Iterator[None]:
        """Have somebody knock meanwhile, if phase 1 is beside: who gets through, and whether phase 1 goes on."""
        from acceptance.phase2.knocking import knocking, steady

        if "phase1" not in phases_on(host, PROGRAM):
            yield
            return
        with knocking(self, host, steady(self)) as found:
            yield
        self.knocked.append(found[0])

    def leave_behind(self, host: Host) -> None:
        """Have the daemon stopped: what it keeps on the disk is then seen by nobody."""
        host.run(["supervisorctl", "stop", "docker"], timeout=self.plan.timeouts.ready)

    def data(self, host: Host) -> Sequence[str]:
        """Return the directories of volumes and containers, and the files that stand for images."""
        marked = ["--filter", f"label=underlay.phase={self.phase}"]
        volumes = host.run(["docker", "volume", "ls", "--quiet", *marked]).stdout.split()
        said = host.run(["docker", "ps", "--all", "--quiet", "--no-trunc", *marked]).stdout.split()
        images = host.run(["docker", "inspect", "--format", "{{.Image}}", *said]).stdout.split() if said else []
        return [
            *(f"{_DISK}/volumes/{name}" for name in volumes),
            *(f"{_DISK}/containers/{name}" for name in said),
            *(f"{_DISK}/image/overlay2/imagedb/content/{name.replace(':', '/')}" for name in sorted(set(images))),
        ]

    def source(self, seat: Seat, target: Seat) -> IPv4Address:
        """Return the address in the target's network, if it is in there."""
        for item in self.containers.attachments[seat.name]:
            if item.tier == target.tier.name:
                return item.address.ip
        return seat.address

    def sources(self, seat: Seat) -> frozenset[IPv4Address]:
        """Return its address in each of its networks: Docker chooses the one that leads out."""
        return frozenset(item.address.ip for item in self.containers.attachments[seat.name])

    def leads_out(self, seat: Seat) -> bool:
        """Whether a network of a replica does: else its own kernel says that there is no way, and no rule is asked."""
        tiers = {item.tier for item in self.containers.attachments[seat.name]}
        return not all(self.containers.internal(self.plan.tier(name)) for name in tiers)

    def leads_to(self, seat: Seat, tier: Tier) -> bool:
        """Whether it is in that network, or a way leads out."""
        return self.leads_out(seat) or any(item.tier == tier.name for item in self.containers.attachments[seat.name])

    def reverse(self, seat: Seat) -> Mapping[IPv4Address, str]:
        """Return what Docker calls whoever is in a network of the replica: by its name, and by that of the network."""
        tiers = {item.tier for item in self.containers.attachments[seat.name]}
        return {
            item.address.ip: f"{name}.shop_{item.tier}"
            for name, every in self.containers.attachments.items()
            for item in every
            if item.tier in tiers
        }

    def unknown(self, seat: Seat) -> tuple[int, str]:
        """Return how a replica is told that there is no such name, or no such record of it.

        Docker asks on what it does not know itself. In a network that leads nowhere there is nobody to ask, and it says
        that it failed.
        """
        return (NAME_ERROR, "EAI_NONAME") if self.leads_out(seat) else (SERVER_FAILED, "EAI_AGAIN")

    def assert_denied(self, outcome: Outcome) -> None:
        """Fail unless an attempt was denied; who is in networks that lead nowhere is told so by his own kernel."""
        member = next((item for item in members(self.plan) if item.name == outcome.attempt.who), None)
        if member is not None and outcome.outcome == "unreachable":
            tiers = [self.plan.tier(item.tier) for item in self.containers.attachments[member.name]]
            near = any(IPv4Address(outcome.attempt.address) in tier.subnet for tier in tiers)
            walled = all(self.containers.internal(tier) for tier in tiers)
            assert walled, f"expected: {member.name} has a way out, and the deny rule stops it; seen: {outcome}"
            assert not near, f"expected: {member.name} reaches its own network's addresses; seen: {outcome}"
            return
        super().assert_denied(outcome)

    def seen_as(self, visit: Visit) -> IPv4Address:
        """Return whom the edge sees.

        Another host, outside, and the host itself at its own address: that address, since rules lead them there. Who
        calls from 127.0.0.1 or from a container is answered by Docker's proxy, which calls on from the bridge's.
        """
        plan = self.plan
        if visit.member is None and not visit.address.is_loopback:
            known = visit.machine in self.lab.hosts
            return plan.host(visit.machine).address.ip if known else plan.underlay.gateway.ip
        return plan.tier(plan.service(visit.entry.service).tier).gateway.ip

    def query(self, seat: Seat, statement: str) -> str:
        """Ask by the socket inside, where the image's user is the superuser."""
        return self.machine(seat).run(
            ["docker", "exec", seat.name, "psql", "--no-psqlrc", "--tuples-only", "--no-align", "--host", ROOM,
             "--port", str(seat.service.port), "--username", "postgres", "--dbname", "shop", "--command", statement]
        ).stdout.strip()  # fmt: skip


def emptied(network: str) -> str:
    """Return the shell command that takes everybody out of a network."""
    every = f"docker ps --all --quiet --filter network={network}"
    return f"{every} | xargs --no-run-if-empty --max-args=1 docker network disconnect --force {network}"


def _asleep(seat: Seat) -> str:
    return f"asleep-{seat.name}"


def _pid(said: Mapping[str, object] | None) -> int:
    state = said.get("State") if said else None
    pid = state.get("Pid") if isinstance(state, Mapping) else None
    return pid if isinstance(pid, int) else 0
