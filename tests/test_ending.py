"""What was not foreseen is told apart from every answer: 70, one line, and a file with the traceback."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest

import provision.__main__ as provisioning
from acceptance.provisioning import provision, read_report
from tests.plans import shop
from underlay import durable
from underlay.cli import phase, status
from underlay.cli.context import Settings
from underlay.ending import ROOTS_TRACEBACKS, ending
from underlay.errors import Exit, InputError, NotReady, Problem, Unforeseen
from underlay.phases import PHASES
from underlay.process import Completed, run
from underlay.repository import REPOSITORY
from underlay.topology import Plan, Timeouts

AMPLE = 20
_PLAN = shop.plan()


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where tracebacks go in these tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "underlay"


def fail(*_: object) -> int:
    raise ValueError("first\nsecond")


def test_one_line_and_a_file_for_its_owner_alone(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="first") as caught:
        fail()
    assert ending(caught.value) == Exit.UNFORESEEN == os.EX_SOFTWARE
    (file,) = directory.iterdir()
    assert capsys.readouterr().err == (
        f"error: unforeseen ValueError: first second; its traceback is in {file}; please report it\n"
    )
    assert (file.stat().st_mode & 0o777, directory.stat().st_mode & 0o777) == (0o600, 0o700)
    text = file.read_text()
    assert "Traceback (most recent call last):" in text
    assert "in fail" in text


def test_no_room_for_a_file_shows_the_traceback(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory.write_text("a file where the directory should be")
    assert ending(ValueError("something")) == Exit.UNFORESEEN
    said = capsys.readouterr().err
    assert "ValueError: something\nerror: unforeseen ValueError: something; please report it; no file" in said


def test_a_full_disk_is_no_fault_of_ours(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was written, its name is told, no half of it stays, and there is no traceback."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for write in (durable.replace, durable.overwrite):
        with pytest.raises(OSError, match="No space left") as caught:
            write(tmp_path / "file", "text")
        assert ending(caught.value) == Exit.NOT_READY
        said = capsys.readouterr().err
        assert said.startswith(f"error: {tmp_path / 'file'}: No space left on device\n    hint: ")
        assert "traceback" not in said
        assert [path.name for path in tmp_path.iterdir() if path.name != "file"] == []


def test_root_keeps_them_where_logs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative $XDG_STATE_HOME is none (XDG Base Directory Specification): nothing lands where the caller is."""
    from underlay import ending as module

    monkeypatch.setenv("XDG_STATE_HOME", "here")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert module._directory() == ROOTS_TRACEBACKS
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert module._directory() == Path.home() / ".local/state/underlay"


def test_command(directory: Path) -> None:
    """A verb of it cannot even be imported, and another one fails in the middle."""
    code = (
        "import sys; from underlay.cli import main as it, context\n"
        "it._VERBS['test'] = ('no_such_module', 'plan', ''); context.Settings.plan = lambda self: 1 / 0\n"
        "sys.exit(it.main(sys.argv[1:]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = run((sys.executable, "-c", code, "test"), timeout=AMPLE, check=False, env=environment)
    (file,) = directory.iterdir()
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (70, "", 1)
    assert done.stderr.startswith("error: unforeseen ModuleNotFoundError: ")
    assert str(file) in done.stderr
    told = run((sys.executable, "-c", code, "-v", "plan", "show"), timeout=AMPLE, check=False, env=environment)
    assert (told.returncode, len(list(directory.iterdir()))) == (70, 2)
    assert "Traceback" in told.stderr


def test_provisioning(directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(provisioning, "_run", fail)
    assert provisioning.main(("check", "phase1")) == 70
    (file,) = directory.iterdir()
    assert f"; its traceback is in {file}; " in capsys.readouterr().err


def test_boot_goes_on_with_the_next_phase_and_tells_of_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provisioning, "_on", list)
    assert provisioning.main(("boot",)) == 0
    asked: list[str] = []

    def first_fails(options: argparse.Namespace) -> int:
        asked.append(options.phase)
        return fail() if len(asked) == 1 else int(Exit.GOOD)

    monkeypatch.setattr(provisioning, "_run", first_fails)
    monkeypatch.setattr(provisioning, "_on", lambda: [*PHASES, *PHASES])
    assert provisioning.main(("boot",)) == 70
    assert asked == [*PHASES, *PHASES]


def test_reader_of_provisioning_that_goes_away_is_no_fault(directory: Path) -> None:
    code = "import sys; from underlay.ending import ending\ntry:\n    print('x' * 10**6)\nexcept OSError as error:\n"
    code += "    sys.exit(ending(error))"
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=AMPLE, env=environment,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
    assert not directory.exists()


@dataclass(frozen=True, slots=True)
class Answering:
    """A host that answers whatever it is asked by a line of shell on this machine."""

    name: str
    line: str
    on: bool = True

    timeouts = Timeouts(connect=1, command=5, ready=5, cache=1)

    @property
    def address(self) -> IPv4Address:
        return _PLAN.host(self.name).address.ip

    @property
    def network(self) -> None:
        return None

    def argv(self, command: Sequence[str], *, namespace: str | None = None, tty: bool = False) -> tuple[str, ...]:
        return ("sh", "-c", self.line)

    def run(
        self, command: Sequence[str], *, timeout: float | None = None, check: bool = True,
        stdin: str | None = None, namespace: str | None = None,
    ) -> Completed:  # fmt: skip
        return run(self.argv(command), timeout=timeout or AMPLE, check=check, stdin=stdin, where=self.name)

    def running(self) -> bool:
        return self.on

    def power_off(self) -> None: ...

    def power_on(self) -> None: ...

    def facts(self) -> dict[str, str]:
        return {}


@dataclass(frozen=True, slots=True)
class Answered:
    """A lab of hosts that answer so."""

    hosts: Mapping[str, Answering]
    kind: str = "namespace"
    plan: Plan = _PLAN
    recorded: Plan = _PLAN

    @property
    def outside(self) -> Answering:
        return self.hosts["host1"]

    def obstacle(self, plan: Plan) -> Problem | None:
        return None

    def take(self, plan: Plan) -> Answered:
        return self


@pytest.mark.parametrize(
    ("first", "second", "worst"),
    [
        ("exit 0", "exit 0", 0),
        ("exit 0", "exit 1", 1),
        ("exit 3", "exit 1", 3),
        ("exit 1", "exit 70", 70),
        ("exit 70", "exit 3", 70),
    ],
)
def test_of_two_hosts_the_worse_answer_counts(first: str, second: str, worst: int) -> None:
    lab = Answered({"host1": Answering("host1", first), "host2": Answering("host2", second)})
    assert phase._all(Settings(None), lab, (), "check", "phase1") == worst


@pytest.mark.parametrize("line", ["exit 0", "exit 1", "exit 3"])
def test_a_host_that_a_signal_ends_is_not_ready(line: str) -> None:
    lab = Answered({"host1": Answering("host1", "kill -KILL $$"), "host2": Answering("host2", line)})
    with pytest.raises(NotReady, match="host1: provisioning was ended by SIGKILL"):
        phase._all(Settings(None), lab, (), "check", "phase1")


def test_a_fault_is_worse_than_a_host_that_a_signal_ends(capsys: pytest.CaptureFixture[str]) -> None:
    lab = Answered({"host1": Answering("host1", "exit 70"), "host2": Answering("host2", "kill -TERM $$")})
    assert phase._all(Settings(None), lab, (), "check", "phase1") == int(Exit.UNFORESEEN)
    assert "host2: provisioning was ended by SIGTERM" in capsys.readouterr().err


def test_hosts_that_are_named_are_asked_once_and_in_the_plans_order() -> None:
    lab = Answered({"host1": Answering("host1", ""), "host2": Answering("host2", "")})
    assert [host.name for host in phase._chosen(lab, ("host2", "host1", "host2"))] == ["host1", "host2"]
    assert [host.name for host in phase._chosen(lab, ("host2",))] == ["host2"]
    assert [host.name for host in phase._chosen(lab, ())] == ["host1", "host2"]


@pytest.mark.parametrize("only", [(), ("host1",), ("host1", "host1")])
def test_containers_are_looked_for_on_their_host(only: tuple[str, ...]) -> None:
    lab = Answered({"host1": Answering("host1", ""), "host2": Answering("host2", "")})
    assert phase._container(lab, only, "gateway-1")[0].name == "host1"
    with pytest.raises(InputError, match="--host host1 --host host2: all containers are on host1"):
        phase._container(lab, ("host1", "host2"), "gateway-1")


def test_a_host_that_is_off_does_not_hide_what_another_said(capsys: pytest.CaptureFixture[str]) -> None:
    lab = Answered({"host1": Answering("host1", "", on=False), "host2": Answering("host2", "echo 7 changes")})
    with pytest.raises(NotReady, match="host1: it is off"):
        phase._all(Settings(None), lab, (), "converge", "phase1")
    assert capsys.readouterr().out == "7 changes\n"


def test_a_fault_is_worse_than_a_host_that_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    lab = Answered({"host1": Answering("host1", "", on=False), "host2": Answering("host2", "exit 70")})
    assert phase._all(Settings(None), lab, (), "converge", "phase1") == int(Exit.UNFORESEEN)
    assert "host1: it is off" in capsys.readouterr().err


@pytest.mark.parametrize(("line", "kind"), [("exit 70", Unforeseen), ("exit 3", NotReady), ("kill -KILL $$", NotReady)])
def test_up_tells_a_fault_from_a_host_that_is_not_ready(line: str, kind: type[Exception]) -> None:
    from underlay.cli import up

    with pytest.raises(kind) as caught:
        up._converge(_PLAN, (Answering("host1", line), Answering("host2", "exit 0")), "phase1")
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("line", "crashed", "state"),
    [("exit 3", False, "up, but its supervisor does not answer"), ("echo oh >&2; exit 70", True, "up, but: oh")],
)
def test_status_tells_a_fault_from_a_supervisor_that_is_silent(line: str, crashed: bool, state: str) -> None:
    seen = status.look(Answered({"host1": Answering("host1", line)}))["host1"]
    assert (seen.crashed, seen.state) == (crashed, state)


@pytest.mark.parametrize("line", ["exit 0", "exit 1", "echo '{}'; exit 1", "echo oh >&2; exit 1"])
def test_answer_without_a_report_is_none(line: str) -> None:
    """Python itself ends with 1 when it cannot even begin."""
    with pytest.raises(AssertionError, match="host1: expected: a report; seen: exit "):
        provision(Answering("host1", line), "check")


def test_fault_is_a_report_of_its_own() -> None:
    assert provision(Answering("host1", "echo oh >&2; exit 70"), "check").exit_code == 70
    report = read_report("host1", 1, '{"differences": [{"resource": "link x", "what": "missing"}]}')
    assert (report.exit_code, report.resources) == (1, ("link x",))
