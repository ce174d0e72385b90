"""What is kept on a host: the ledger of former values, and the lab's secret."""

from __future__ import annotations

import grp
import json
import pwd
from dataclasses import replace
from pathlib import Path

import pytest

from provision import secrets
from provision.kernel.network import Network
from provision.marks import Mark, Places
from provision.once import Once
from provision.resources import program, rules, sysctl
from provision.resources.file import Directory, TextFile, discover
from provision.resources.rules import Table
from provision.resources.secret import PasswordFile
from provision.resources.sysctl import Sysctl
from provision.resources.user import User
from provision.supervisor import ProgramState, Supervisor
from provision.system import Entry, Ledger, NotOurs, System
from underlay import durable
from underlay.errors import Exit, NotReady
from underlay.process import Completed
from underlay.topology import Timeouts

_FORWARD, _POLICY = "sysctl net.ipv4.ip_forward", "policy filter FORWARD"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state" / "ledger.json")


@pytest.fixture
def put_back() -> list[str]:
    """The values that were put back."""
    return []


def test_first_value_stays(ledger: Ledger) -> None:
    ledger.hold(_FORWARD, "0", "phase1")
    ledger.hold(_FORWARD, "1", "phase1")
    ledger.hold(_POLICY, "ACCEPT", "phase1")
    assert ledger.read() == {_FORWARD: Entry("0", ("phase1",)), _POLICY: Entry("ACCEPT", ("phase1",))}
    assert Ledger(ledger.path).read() == ledger.read()


@pytest.mark.parametrize("order", [("phase1", "phase2"), ("phase2", "phase1")])
def test_value_goes_back_when_its_last_holder_lets_go(
    order: tuple[str, str], ledger: Ledger, put_back: list[str]
) -> None:
    ledger.hold(_FORWARD, "0", "phase1")
    ledger.hold(_FORWARD, "1", "phase2")  # which finds what the first one made
    first, last = order
    ledger.let_go(_FORWARD, first, put_back.append)
    assert put_back == []
    assert (ledger.held(first), ledger.held(last)) == ({}, {_FORWARD: Entry("0", (last,))})
    ledger.let_go(_FORWARD, last, put_back.append)
    assert put_back == ["0"]
    assert list(ledger.path.parent.iterdir()) == [], "the last entry takes the file along"


def test_who_holds_nothing_puts_nothing_back(ledger: Ledger, put_back: list[str]) -> None:
    ledger.let_go(_FORWARD, "phase1", put_back.append)
    ledger.hold(_FORWARD, "0", "phase1")
    ledger.let_go(_FORWARD, "phase2", put_back.append)
    assert put_back == []
    assert ledger.held("phase1") == {_FORWARD: Entry("0", ("phase1",))}


def test_what_could_not_be_put_back_is_not_forgotten(ledger: Ledger) -> None:
    def fail(_: str) -> None:
        raise PermissionError

    ledger.hold(_FORWARD, "0", "phase1")
    with pytest.raises(PermissionError):
        ledger.let_go(_FORWARD, "phase1", fail)
    assert ledger.held("phase1") == {_FORWARD: Entry("0", ("phase1",))}


def test_after_the_last_holder_a_value_is_noted_anew(ledger: Ledger, put_back: list[str]) -> None:
    ledger.hold(_FORWARD, "0", "phase1")
    ledger.let_go(_FORWARD, "phase1", put_back.append)
    ledger.hold(_FORWARD, "1", "phase1")
    assert ledger.held("phase1") == {_FORWARD: Entry("1", ("phase1",))}


def test_ledger_is_replaced_whole(ledger: Ledger) -> None:
    ledger.hold("a", "1", "phase1")
    with ledger.path.open() as before:
        ledger.hold("b", "2", "phase1")
        assert list(json.load(before)) == ["a"], "a reader of the old file sees the old file"
    assert list(ledger.read()) == ["a", "b"]
    assert [path.name for path in ledger.path.parent.iterdir()] == ["ledger.json"]


def test_half_written_draft_is_not_taken_for_the_ledger(ledger: Ledger) -> None:
    ledger.hold("a", "1", "phase1")
    durable.draft(ledger.path).write_text('{"a": "1", "b"')
    assert list(ledger.read()) == ["a"]
    ledger.hold("c", "3", "phase1")
    assert list(ledger.read()) == ["a", "c"]


def test_a_question_is_asked_once_until_its_answer_is_forgotten() -> None:
    answers = iter(range(3))
    question = Once(lambda: next(answers))
    assert (question.answer(), question.answer()) == (0, 0)
    question.forget()
    assert (question.answer(), question.answer()) == (1, 1)


def test_password_is_the_same_for_a_role_and_differs_between_roles(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("the lab's own")
    (tmp_path / "other").write_text("another lab's")
    first = secrets.password(path, "product")
    assert secrets.password(path, "product") == first
    assert secrets.password(path, "order") != first
    assert secrets.password(tmp_path / "other", "product") != first
    assert len(first) >= 32
    assert path.read_text().strip() not in first


def test_host_makes_no_secret_of_its_own(tmp_path: Path) -> None:
    """It would be another one than the other hosts have."""
    with pytest.raises(NotReady, match=r"(?s)the lab's secret, .*, is not there.*\./lab converge phase1"):
        secrets.password(tmp_path / "secret", "product")
    assert list(tmp_path.iterdir()) == []


def test_given_secret_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("the lab's own\n")
    assert secrets.lab_secret(path) == b"the lab's own"
    secrets.password(path, "product")
    assert path.read_text() == "the lab's own\n"


def test_hosts_with_the_same_secret_know_the_same_passwords(tmp_path: Path) -> None:
    for host in ("host1", "host2"):
        (tmp_path / host).write_text("one for all")
    passwords = {secrets.password(tmp_path / host, "order") for host in ("host1", "host2")}
    assert len(passwords) == 1


def test_password_file_is_for_its_owner_only(tmp_path: Path) -> None:
    owner = tmp_path.owner()
    timeouts = Timeouts(connect=1, command=1, ready=1, cache=1)
    supervisor = Supervisor("host1", 1, tmp_path / "socket")
    mark = Mark("phase1", 1, Places(tmp_path / "settings", tmp_path / "state", tmp_path / "run"))
    system = System("host1", mark, timeouts, Network("host1"), supervisor)
    mark.places.settings.mkdir()
    mark.places.secret.write_text("the lab's own")
    item = PasswordFile(tmp_path / "settings" / "phase1" / "product", owner, "product")
    assert item.observe(system) == "is missing"
    item.apply(system)
    assert item.observe(system) is None
    assert item.path.stat().st_mode & 0o777 == 0o400
    assert item.path.read_text() == secrets.password(tmp_path / "settings" / "secret", "product")
    item.path.chmod(0o644)
    assert item.observe(system) == "mode is 644, planned 400"
    item.path.write_text("guessed")
    assert item.observe(system) == "has another text than planned"


def test_what_is_not_ours_is_left_alone_and_said_so() -> None:
    error = NotOurs("host1", "a link named br-data", ("ip", "link", "delete", "br-data"))
    assert error.exit_code is Exit.NOT_READY
    (problem,) = error.problems
    assert problem.where == "host1"
    assert "a link named br-data" in problem.what
    assert problem.hint.endswith("./lab exec host1 -- ip link delete br-data")


def test_looking_again_asks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def run(argv: tuple[str, ...], **options: object) -> Completed:
        asked.append(argv)
        return Completed(argv, 0, f"rules {len(asked)}", "", 0.0)

    monkeypatch.setattr("provision.system.run", run)
    timeouts = Timeouts(connect=1, command=1, ready=1, cache=1)
    supervisor = Supervisor("host1", 1, tmp_path / "socket")
    system = System("host1", Mark("phase1", 1), timeouts, Network("host1"), supervisor)
    assert (system.rules.answer(), system.rules.answer()) == ("rules 1", "rules 1")
    system.look_again()
    assert system.rules.answer() == "rules 2"
    assert asked == [("iptables-save",)] * 2


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """A host whose places, and whose directories of others, are the test's own."""
    monkeypatch.setattr("provision.resources.file._NETNS", tmp_path / "netns")
    monkeypatch.setattr("provision.resources.program.CONFIG_DIR", tmp_path / "conf.d")
    mark = Mark("phase1", 1, Places(tmp_path / "settings", tmp_path / "state", tmp_path / "run"))
    timeouts = Timeouts(connect=1, command=1, ready=1, cache=1)
    return System("host1", mark, timeouts, Network("host1"), Supervisor("host1", 1, tmp_path / "socket"))


def test_a_marked_file_of_a_shared_directory_goes_with_the_draft_of_a_killed_run(
    system: System, tmp_path: Path
) -> None:
    path = tmp_path / "netns/edge-1/resolv.conf"
    path.parent.mkdir(parents=True)
    path.write_text(f"# {system.mark.text}\n")
    durable.draft(path).touch()
    for found in discover(system, frozenset()):
        found.remove(system)
    assert not (tmp_path / "netns").exists()


def test_a_draft_of_ours_whose_file_was_never_made_is_found_too(system: System, tmp_path: Path) -> None:
    """A run was killed before its first file had its name."""
    for path in (tmp_path / "netns/edge-1/resolv.conf", tmp_path / "conf.d/edge-1.conf"):
        path.parent.mkdir(parents=True)
        durable.draft(path).write_text(f"# {system.mark.text}\n")
    for found in discover(system, frozenset()):
        found.remove(system)
    assert not (tmp_path / "netns").exists()
    assert [found.identity for found in program.discover(system, frozenset())] == ["program edge-1"]


def test_parameters_go_back_the_last_one_first(system: System) -> None:
    """Writing ip_forward resets accept_redirects, which must be written after it, then."""
    for key in ("net.ipv4.conf.all.accept_redirects", "net.ipv4.ip_forward"):
        system.ledger.hold(f"sysctl {key}", "0", system.mark.phase)
    found = [found.identity for found in sysctl.discover(system, frozenset())]
    assert found == ["sysctl net.ipv4.ip_forward", "sysctl net.ipv4.conf.all.accept_redirects"]


def test_a_strangers_group_is_in_the_way_of_a_user(system: System) -> None:
    pwd_names, grp_names = {entry.pw_name for entry in pwd.getpwall()}, {entry.gr_name for entry in grp.getgrall()}
    lonely = min(grp_names - pwd_names)
    with pytest.raises(NotOurs, match=f"a group {lonely} is in the way"):
        User(lonely).observe(system)
    assert User("nobody-of-this-name").observe(system) == "is missing"


@pytest.mark.parametrize("place", ["netns/vpn/resolv.conf", "conf.d/theirs.conf"])
@pytest.mark.parametrize("what", ["a link that leads nowhere", "a directory", "a link to what is ours"])
def test_whatever_others_have_in_shared_directories_is_passed_over(
    place: str, what: str, system: System, tmp_path: Path
) -> None:
    theirs, ours = tmp_path / place, tmp_path / "ours"
    theirs.parent.mkdir(parents=True)
    ours.write_text(f"# {system.mark.text}\n")
    if what == "a directory":
        theirs.mkdir()
    else:
        theirs.symlink_to(tmp_path / "nowhere" if what == "a link that leads nowhere" else ours)
    found = [*discover(system, frozenset()), *program.discover(system, frozenset())]
    assert found == []
    assert program.states(replace(system, supervisor=Nobody("host1", 1))) == {}


class Nobody(Supervisor):
    """A supervisor that looks after nothing."""

    def programs(self) -> dict[str, ProgramState]:
        return {}


def test_what_is_no_file_is_in_the_way_elsewhere_and_replaced_below_our_own(system: System, tmp_path: Path) -> None:
    owner = tmp_path.owner()
    theirs = TextFile(tmp_path / "netns/edge-1/resolv.conf", "text", owner=owner, in_place=True)
    for make in (Path.mkdir, lambda path: path.symlink_to(tmp_path / "nowhere")):
        theirs.path.parent.mkdir(parents=True, exist_ok=True)
        make(theirs.path)
        with pytest.raises(NotOurs, match="which is no file, is in the way"):
            theirs.observe(system)
        theirs.path.rmdir() if theirs.path.is_dir() else theirs.path.unlink()

    ours = TextFile(system.mark.settings / "nginx.conf", "text", owner=owner)
    (ours.path / "below").mkdir(parents=True)
    assert ours.observe(system) == "is no file"
    ours.apply(system)
    assert (ours.observe(system), ours.path.read_text()) == (None, "text")

    room = Directory(system.mark.run / "edge-1", 0o700, owner)
    room.path.parent.mkdir(parents=True)
    room.path.touch()
    assert room.observe(system) == "is no directory"
    room.apply(system)
    assert room.observe(system) is None


@pytest.fixture
def here(tmp_path: Path) -> System:
    """A host that keeps things below a directory of the test."""
    mark = Mark("phase1", 1, Places(tmp_path / "settings", tmp_path / "state", tmp_path / "run"))
    timeouts = Timeouts(connect=1, command=1, ready=1, cache=1)
    return System("host1", mark, timeouts, Network("host1"), Supervisor("host1", 1, tmp_path / "socket"))


def test_a_parameter_is_not_changed_before_its_value_is_written_down(
    here: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that dies in between must not make the next one take our value for the host's own."""
    parameter = tmp_path / "ip_forward"
    parameter.write_text("7")
    monkeypatch.setattr("provision.resources.sysctl._path", lambda _: parameter)
    (tmp_path / "state").touch()  # where the ledger's directory should be
    item = Sysctl(None, "net.ipv4.ip_forward", "1")
    with pytest.raises(OSError, match="state"):
        item.apply(here)
    assert parameter.read_text() == "7"
    (tmp_path / "state").unlink()
    item.apply(here)
    assert parameter.read_text() == "1"
    (found,) = sysctl.discover(here, frozenset())
    found.remove(here)
    assert parameter.read_text() == "7", "what it was, whatever that is"


def test_a_policy_is_not_changed_before_it_is_written_down_and_goes_back_as_it_was(
    here: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, fed, known = "*filter\n:FORWARD {} [0:0]\nCOMMIT\n", list[str](), list[dict[str, Entry]]()

    def run(argv: tuple[str, ...], *, stdin: str | None = None, **_: object) -> Completed:
        if stdin is not None:
            fed.append(stdin)
            known.append(here.ledger.read())
        return Completed(argv, 0, saved.format("DROP"), "", 0.0)

    monkeypatch.setattr("provision.system.run", run)
    Table("filter", (), (), (("FORWARD", "ACCEPT"),)).apply(here)
    assert known == [{"policy filter FORWARD": Entry("DROP", ("phase1",))}]
    here.look_again()
    (found,) = rules.discover(here, frozenset())  # though nothing but the policy is left of it
    found.remove(here)
    assert [line for line in fed[1].splitlines() if line.startswith(":")] == [":FORWARD DROP [0:0]"]
    assert here.ledger.read() == {}
