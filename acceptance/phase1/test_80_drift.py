"""Drift: whatever is broken by hand, `check` names it and nothing else, and `converge` mends it and only it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pytest

from acceptance.conftest import LastSeen
from acceptance.kernel import difference, snapshot
from acceptance.phase1.stage import user
from acceptance.provisioning import Report, provision
from acceptance.suite import flows
from acceptance.suite.shop import Shop
from acceptance.suite.stage import WITH_PASSWORD, Seat, Stage
from acceptance.traffic import Attempt, outward
from underlay.hosts.base import Host
from underlay.hosts.layout import SECRET_FILE
from underlay.topology import Plan, Program
from underlay.wait import NotYet, until

#: See pyproject.toml.
pytestmark = pytest.mark.rebuilds

#: An address of nobody: TEST-NET-3 (RFC 5737).
_FOREIGN = "203.0.113.7/24"
_DNS_CONFIG = "/etc/underlay/phase1/dns/dnsmasq.conf"


@dataclass(frozen=True, slots=True)
class Victim:
    """What is broken: a replica, what it is plugged into, and the name of the link inside its namespace."""

    seat: Seat
    inner: str

    @property
    def name(self) -> str:
        """The replica's name, which is also its namespace's and its program's."""
        return self.seat.replica.name

    @property
    def link(self) -> str:
        """The host's end of its veth pair."""
        return self.seat.replica.link

    @property
    def bridge(self) -> str:
        """The bridge it is plugged into."""
        return self.seat.tier.bridge


@dataclass(frozen=True, slots=True)
class Drift:
    """A way to break something: commands on the host, what `check` must name, and what may legitimately follow.

    Both are words of the resources' names; what follows is compared as a part of the name. ``clear`` takes away what is
    a stranger's, and must be there still when all is mended.
    """

    commands: Callable[[Victim], list[str]]
    named: Callable[[Victim], str]
    follows: Callable[[Victim, Plan], tuple[str, ...]] = lambda victim, plan: ()
    clear: Callable[[Victim], list[str]] = lambda victim: []


def _inside(victim: Victim, plan: Plan) -> tuple[str, ...]:
    """Return what goes with a namespace or its cable: what is in it, or on it, and the program that runs there."""
    return (f" {victim.name}/", f" on {victim.name}/", victim.link, f"program {victim.name}")


def _tier(victim: Victim, plan: Plan) -> tuple[str, ...]:
    """Return what goes with a bridge: its address, its parameters, and the ports' membership."""
    ports = [item.link for service, item in plan.replicas() if service.tier == victim.seat.tier.name]
    return (*(f"link {port}" for port in ports), f" on {victim.bridge}", f".{victim.bridge}.")


def _routes(victim: Victim, plan: Plan) -> tuple[str, ...]:
    """Routes go with the address or the link that they need."""
    return (f"route {victim.name}/",)


DRIFTS: Mapping[str, Drift] = {
    "namespace deleted": Drift(lambda v: [f"ip netns delete {v.name}"], lambda v: f"namespace {v.name}", _inside),
    "bridge deleted": Drift(lambda v: [f"ip link delete {v.bridge}"], lambda v: f"link {v.bridge}", _tier),
    "veth deleted": Drift(lambda v: [f"ip link delete {v.link}"], lambda v: f"link {v.link}", _inside),
    "veth unplugged": Drift(lambda v: [f"ip link set {v.link} nomaster"], lambda v: f"link {v.link}"),
    "link down": Drift(lambda v: [f"ip link set {v.link} down"], lambda v: f"link {v.link}"),
    "inner link down": Drift(
        lambda v: [f"ip -n {v.name} link set {v.inner} down"], lambda v: f"link {v.link}", _routes
    ),
    "loopback down": Drift(lambda v: [f"ip -n {v.name} link set lo down"], lambda v: f"namespace {v.name}"),
    "mtu changed": Drift(
        lambda v: [f"ip link set {v.link} mtu 1300"],
        lambda v: f"link {v.link}",
        lambda v, _: (f"link {v.bridge}",),  # a bridge takes over its smallest port's (br_mtu_auto_adjust)
    ),
    "address removed": Drift(
        lambda v: [f"ip -n {v.name} address delete {v.seat.replica.address} dev {v.inner}"],
        lambda v: f"address {v.seat.replica.address} on {v.name}/{v.inner}",
        _routes,
    ),
    "foreign address inside": Drift(
        lambda v: [f"ip -n {v.name} address add {_FOREIGN} dev {v.inner}"],
        lambda v: f"address {_FOREIGN} on {v.name}/{v.inner}",
    ),
    "foreign address": Drift(
        lambda v: [f"ip address add {_FOREIGN} dev {v.bridge}"], lambda v: f"address {_FOREIGN} on {v.bridge}"
    ),
    "route removed": Drift(lambda v: [f"ip -n {v.name} route delete default"], lambda v: f"route {v.name}/0.0.0.0/0"),
    "route by another link": Drift(
        lambda v: [f"ip -n {v.name} route replace default via {v.seat.tier.gateway.ip} dev lo onlink"],
        lambda v: f"route {v.name}/0.0.0.0/0",
    ),
    "host parameter": Drift(
        # The kernel resets the second one when the first is written; this drift is of the first alone.
        lambda v: ["sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.conf.all.accept_redirects=0"],
        lambda v: "sysctl net.ipv4.ip_forward",
    ),
    "bridge parameter": Drift(
        lambda v: ["sysctl -qw net.bridge.bridge-nf-call-iptables=0"],
        lambda v: "sysctl net.bridge.bridge-nf-call-iptables",
    ),
    "namespace parameter": Drift(
        lambda v: [f"ip netns exec {v.name} sysctl -qw net.ipv6.conf.all.disable_ipv6=0"],
        lambda v: f"sysctl {v.name}/net.ipv6.conf.all.disable_ipv6",
        lambda v, _: (f"sysctl {v.name}/net.ipv6.conf.default.disable_ipv6",),  # "all" is written to it as well
    ),
    "rule deleted": Drift(lambda v: ["iptables -w -D PHASE1-FROM 1"], lambda v: "iptables filter"),
    "rule added": Drift(lambda v: ["iptables -w -I PHASE1-FROM -j ACCEPT"], lambda v: "iptables filter"),
    "rule moved": Drift(
        lambda v: [f"iptables -w -{how} PHASE1-EGRESS -j ACCEPT" for how in "DI"], lambda v: "iptables filter"
    ),
    "jump removed": Drift(lambda v: ["iptables -w -D FORWARD 1"], lambda v: "iptables filter"),
    "policy changed": Drift(lambda v: ["iptables -w -P FORWARD ACCEPT"], lambda v: "iptables filter"),
    "tags pass": Drift(lambda v: ["nft delete table bridge underlay-phase1"], lambda v: "nftables bridge"),
    "translation flushed": Drift(lambda v: ["iptables -w -t nat -F PHASE1-LEAVE"], lambda v: "iptables nat"),
    "resolv.conf edited": Drift(
        lambda v: [f"echo nameserver 192.0.2.1 >> /etc/netns/{v.name}/resolv.conf"],
        lambda v: f"file /etc/netns/{v.name}/resolv.conf",
    ),
    "resolv.conf made anew": Drift(
        lambda v: [
            f"cp -p /etc/netns/{v.name}/resolv.conf /run/kept",
            f"rm /etc/netns/{v.name}/resolv.conf",
            f"mv /run/kept /etc/netns/{v.name}/resolv.conf",
        ],
        lambda v: f"program {v.name}",  # which would go by the deleted one for ever
    ),
    "dns configuration edited": Drift(
        lambda v: [f"echo server=192.0.2.1 >> {_DNS_CONFIG}"],
        lambda v: f"file {_DNS_CONFIG}",
        lambda *_: ("program dns",),  # nobody knows whether it has read the edited file
    ),
    "user that may log in": Drift(
        lambda v: [f"usermod --shell /bin/sh {user(v.seat)}"], lambda v: f"user {user(v.seat)}"
    ),
    "program frozen": Drift(
        lambda v: [f"ip netns pids {v.name} | xargs kill -STOP"],
        lambda v: f"program {v.name}",
    ),
    "program stopped": Drift(lambda v: [f"supervisorctl stop {v.name}"], lambda v: f"program {v.name}"),
    "program's configuration edited": Drift(
        lambda v: [f"echo '; edited' >> /etc/supervisor/conf.d/{v.name}.conf"], lambda v: f"program {v.name}"
    ),
    "program that cannot start": Drift(
        lambda v: [
            f"sed -i 's/^command=.*/command=false/' /etc/supervisor/conf.d/{v.name}.conf",
            f"supervisorctl update {v.name}",
            f"supervisorctl start {v.name} || :",
        ],
        lambda v: f"program {v.name}",
    ),
    "stranger's rule before ours": Drift(
        lambda v: ["iptables -w -I FORWARD -j ACCEPT"],
        lambda v: "iptables filter",
        # It is not ours to take away; ours must come before it again.
        clear=lambda v: ["iptables -w -D FORWARD -j ACCEPT"],
    ),
    "jump in a stranger's chain": Drift(
        lambda v: [
            "iptables -w -t nat -N STRANGER",
            "iptables -w -t nat -A STRANGER -m comment --comment 'underlay phase1' -j PHASE1-TARGET",
        ],
        lambda v: "iptables nat",
        clear=lambda v: ["iptables -w -t nat -X STRANGER"],
    ),
}


#: Kinds that do not touch each other are broken together, each on a replica of its own, so that a whole round costs
#: one check and one converge: what these name must then be the sum of what the kinds may name, and nothing else.
ROUNDS = (
    ("namespace deleted", "veth deleted", "mtu changed", "rule deleted", "translation flushed", "host parameter"),
    ("bridge deleted", "jump removed", "bridge parameter", "dns configuration edited"),
    ("veth unplugged", "address removed", "route removed", "rule added", "program stopped", "resolv.conf edited"),
    ("link down", "inner link down", "loopback down", "policy changed", "program frozen", "tags pass"),
    (
        "namespace parameter",
        "foreign address",
        "program's configuration edited",
        "program that cannot start",
        "resolv.conf made anew",
        "rule moved",
    ),
    (
        "stranger's rule before ours",
        "jump in a stranger's chain",
        "foreign address inside",
        "route by another link",
        "user that may log in",
    ),
)


@dataclass(frozen=True, slots=True)
class Broken:
    """What was broken in one round, and what check, converge and the kernel said of it."""

    victims: Mapping[str, Victim]
    expected: frozenset[str]
    checked: Report
    mended: Report
    left: str

    def unrelated(self, report: Report, plan: Plan) -> list[str]:
        """Return the resources that a report names although nothing that was broken explains it."""
        follows = [word for kind, victim in self.victims.items() for word in DRIFTS[kind].follows(victim, plan)]
        return [name for name in report.resources if name not in self.expected and not any(w in name for w in follows)]


class Rounds:
    """The rounds, each done when it is first asked for; if one fails, its host is put right before the next."""

    def __init__(self, stage: Stage, last_seen: LastSeen) -> None:
        self._stage = stage
        self._last_seen = last_seen
        self._done: dict[tuple[str, ...], Broken] = {}
        here = max(stage.by_host().values(), key=len)
        # The database is left alone: others cannot do without it, and it is slow to come back.
        useful = [seat for seat in here if seat.service.program is not Program.POSTGRES] or here
        self.host = stage.machine(useful[0])
        places = last_seen.snapshots[self.host.name].namespaces
        self.victims = [Victim(seat, places[seat.replica.namespace].with_address(seat.address).name) for seat in useful]
        most = max(len(kinds) for kinds in ROUNDS)
        self._rounds = ROUNDS if len(self.victims) >= most else tuple((kind,) for kind in DRIFTS)

    def of(self, kind: str) -> Broken:
        """Return the round of a kind."""
        kinds = next(kinds for kinds in self._rounds if kind in kinds)
        if kinds not in self._done:
            try:
                self._done[kinds] = self._go(kinds)
            except BaseException:
                provision(self.host, "converge")
                raise
        return self._done[kinds]

    def _go(self, kinds: tuple[str, ...]) -> Broken:
        before = self._last_seen.snapshots[self.host.name].lines()
        victims = dict(zip(kinds, self.victims, strict=False))
        lines = [line for kind in kinds for line in DRIFTS[kind].commands(victims[kind])]
        self.host.run(["sh", "-e", "-c", "\n".join(lines)])
        checked = provision(self.host, "check")
        mended = provision(self.host, "converge", wait=False)
        clear = [line for kind in kinds for line in DRIFTS[kind].clear(victims[kind])]
        self.host.run(["sh", "-e", "-c", "\n".join(clear)])
        left = difference(before, snapshot(self.host).lines())
        _sample(self._stage, self.host, victims.values())
        expected = frozenset(DRIFTS[kind].named(victim) for kind, victim in victims.items())
        return Broken(victims, expected, checked, mended, left)


@pytest.fixture(scope="module")
def rounds(stage: Stage, last_seen: LastSeen) -> Rounds:
    """Return the rounds of this lab."""
    return Rounds(stage, last_seen)


def _sample(stage: Stage, host: Host, victims: Iterable[Victim]) -> None:
    """Fail unless the victims serve, and their host lets them do what they may and nothing else."""
    attempts: list[tuple[Attempt, bool]] = []
    for victim in victims:
        seat = victim.seat
        pairs = [pair for pair in flows.all_pairs(stage.plan) if pair.source.name == victim.name]
        some = [next((pair for pair in pairs if pair.allowed is kind), None) for kind in (True, False)]
        attempts.append((outward("tcp", seat.address, seat.service.port), True))
        goals = [(stage.seat(pair.target), pair.allowed) for pair in some if pair is not None]
        attempts += [(seat.attempt("tcp", goal.address, goal.service.port), allowed) for goal, allowed in goals]
    prober = stage.prober(host.name)

    def green() -> bool | NotYet:
        outcomes = prober.attempt([item for item, _ in attempts])
        for outcome, (_, allowed) in zip(outcomes, attempts, strict=True):
            if not allowed:
                stage.assert_denied(outcome)
            elif not outcome.connected:
                return NotYet(str(outcome))
        return True

    until(green, deadline_s=stage.plan.timeouts.ready, what="traffic as planned", where=host.name)


@pytest.mark.parametrize("kind", [kind for kinds in ROUNDS for kind in kinds])
def test_drift_is_named_and_mended(rounds: Rounds, plan: Plan, kind: str) -> None:
    broken = rounds.of(kind)
    where, named = rounds.host.name, DRIFTS[kind].named(broken.victims[kind])
    checked, mended = broken.checked, broken.mended
    assert checked.exit_code == 1, f"{where}: expected: check finds {kind} (exit 1); seen: {checked}"
    assert named in checked.resources, f"{where}: expected: check names {named}; seen: {checked.resources}"
    strangers = broken.unrelated(checked, plan)
    assert not strangers, f"{where}: expected: {sorted(broken.expected)} alone; seen besides: {strangers}"
    assert mended.exit_code == 0, f"{where}: expected: converge mends {kind}; seen: {mended}"
    assert named in mended.resources, f"{where}: expected: converge mends {named}; seen: {mended.resources}"
    strangers = broken.unrelated(mended, plan)
    assert not strangers, f"{where}: expected: it mends only that; seen besides: {strangers}"
    assert not broken.left, f"{where}: expected: the same kernel state as before; seen:\n{broken.left}"


def test_every_kind_is_in_a_round() -> None:
    kinds = [kind for kinds in ROUNDS for kind in kinds]
    assert sorted(kinds) == sorted(DRIFTS), f"expected: each kind once; seen: {set(kinds) ^ set(DRIFTS)}"


def test_killed_program_is_started_again(stage: Stage, rounds: Rounds) -> None:
    """That needs no converge: the supervisor does it."""
    host, victim = rounds.host, rounds.victims[0]
    first = snapshot(host).surroundings()
    before = host.run(["supervisorctl", "pid", victim.name]).stdout.strip()
    host.run(["kill", "-9", before])

    def another() -> str | NotYet:
        pid = host.run(["supervisorctl", "pid", victim.name], check=False).stdout.strip()
        return pid if pid not in {"0", "", before} else NotYet(f"process {pid}")

    until(another, deadline_s=stage.plan.timeouts.ready, what=f"a new process of {victim.name}", where=host.name)
    _sample(stage, host, (victim,))
    left = difference(first, snapshot(host).surroundings())
    assert not left, f"{host.name}: expected: nothing is left of the killed process; seen:\n{left}"


def test_frozen_program_goes_on_and_is_not_started_again(rounds: Rounds) -> None:
    host, victim = rounds.host, rounds.victims[0]
    before = host.run(["supervisorctl", "pid", victim.name]).stdout
    host.run(["kill", "-STOP", before.strip()])
    made = provision(host, "converge")
    named = (made.exit_code, made.resources)
    assert named == (0, (f"program {victim.name}",)), f"{host.name}: expected: {victim.name} is mended; seen: {made}"
    after = host.run(["supervisorctl", "pid", victim.name]).stdout
    assert after == before, f"{host.name}: {victim.name}: expected: process {before} goes on; seen: {after}"


def test_other_passwords_reach_the_database_and_the_services(stage: Stage, shop: Shop) -> None:
    """All passwords come of one secret, which every host has; who reads one when it starts is started again."""
    if not any(seat.service.program in WITH_PASSWORD for seat in stage.seats()):
        pytest.skip("the plan has no service with a password")
    database = shop.database()
    assert database, "expected: a plan with a database"
    # Its host first: the services of others wait until they are let in.
    names = sorted(stage.by_host(), key=lambda name: name != database.host)
    hosts = [stage.lab.hosts[name] for name in names]
    number = int(shop.query("SELECT id FROM products ORDER BY stock DESC LIMIT 1"))
    before = {host.name: host.run(["cat", SECRET_FILE]).stdout for host in hosts}
    other = secrets.token_hex(32)
    try:
        for host in hosts:
            host.run(["tee", SECRET_FILE], stdin=other)
        _converge_all(hosts)
        # Who is in stays in; who comes again shows his password again.
        shop.query("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename <> 'postgres'")
        shop.wait_for(shop.order(number), 201)
        for host in hosts:
            report = provision(host, "check")
            assert report.exit_code == 0, f"{host.name}: expected: no differences; seen: {report}"
    finally:
        for host in hosts:
            host.run(["tee", SECRET_FILE], stdin=before[host.name])
        _converge_all(hosts)
    shop.wait_for(shop.order(number), 201)


def _converge_all(hosts: Sequence[Host]) -> None:
    for host in hosts:
        made = provision(host, "converge")
        assert made.exit_code == 0, f"{host.name}: expected: it is mended; seen: {made}"


def test_everything_is_as_planned_again(stage: Stage, rounds: Rounds) -> None:
    made = provision(rounds.host, "converge")
    assert (made.exit_code, made.resources) == (0, ()), f"{rounds.host.name}: expected: 0 changes; seen: {made}"
    report = provision(rounds.host, "check")
    assert report.exit_code == 0, f"{rounds.host.name}: expected: no differences; seen: {report}"
    flows.assert_all(stage)
