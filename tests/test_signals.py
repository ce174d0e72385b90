"""Programs of ours hear signals whatever they were started by; the shell and nohup(1) start them with some ignored."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from underlay.process import run
from underlay.repository import REPOSITORY
from underlay.wait import NotYet, until

AMPLE = 20


def environment() -> dict[str, str]:
    """What programs are started with: led to this checkout, and to no lab (``tests/apart.py``)."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


#: Programs that wait: by their name, how they are started so that they read from a pipe that nobody writes into.
_WAITING = {
    "command": lambda pipe: ("-m", "underlay", "--plan", pipe, "plan", "show"),
    "provisioning": lambda pipe: ("-m", "provision", "check", "phase1", "--plan", pipe),
}
_ENDING = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "HUP": signal.SIGHUP}


@contextmanager
def waiting(words: Callable[[str], tuple[str, ...]], directory: Path, ignored: str) -> Iterator[subprocess.Popen[str]]:
    """A program of ours that was started with signals ignored, and has come to wait for its plan."""
    pipe = directory / "plan.yaml"
    os.mkfifo(pipe)
    argv = ["env", f"--ignore-signal={ignored}", sys.executable, "-P", *words(str(pipe))]
    with subprocess.Popen(
        argv, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        writer = until(lambda: opened(pipe), deadline_s=AMPLE, what="the program's opening of its plan")
        try:
            until(asleep(program.pid), deadline_s=AMPLE, what="the program's wait for its plan")
            yield program
        finally:
            os.close(writer)
            program.kill()


def opened(pipe: Path) -> int | NotYet:
    """The pipe's other end, once somebody reads from it."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return NotYet("nobody reads")


def asleep(pid: int) -> Callable[[], bool | NotYet]:
    """Whether a process sleeps, and has not run since the last look.

    Python sees a signal between two steps, or when a system call is interrupted: one that comes just before a system
    call that waits is seen when that ends.
    """
    before = ""

    def look() -> bool | NotYet:
        nonlocal before
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        state = next(line for line in lines if line.startswith("State:"))
        now = " ".join(line for line in lines if "ctxt_switches" in line)
        same, before = now == before, now
        return (same and state.split()[1] == "S") or NotYet(f"{state}, {now}")

    return look


def ignored_by(pid: int) -> set[str]:
    """Those of the signals that matter here which a process ignores (proc_pid_status(5), SigIgn)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn:"))
    matter = (signal.SIGINT, signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP)
    return {number.name for number in matter if mask & 1 << number - 1}


@pytest.mark.parametrize("program", _WAITING)
def test_what_was_ignored_by_the_starter_is_heard(program: str, tmp_path: Path) -> None:
    with waiting(_WAITING[program], tmp_path, "INT,CHLD,TERM") as started:
        assert ignored_by(started.pid) == set()


@pytest.mark.parametrize("program", _WAITING)
@pytest.mark.parametrize("name", _ENDING)
def test_signal_ends_it_as_ctrl_c_does(program: str, name: str, tmp_path: Path) -> None:
    with waiting(_WAITING[program], tmp_path, "INT") as started:
        started.send_signal(_ENDING[name])
        out, err = started.communicate(timeout=AMPLE)
    assert (started.returncode, out) == (128 + _ENDING[name], "")
    assert "interrupted; the next " in err
    assert "Traceback" not in err


def test_nohup_is_respected(tmp_path: Path) -> None:
    with waiting(_WAITING["command"], tmp_path, "HUP") as started:
        assert ignored_by(started.pid) == {"SIGHUP"}


def test_starter_of_hosts_hears_too() -> None:
    """It reads its order from standard input."""
    argv = ("env", "--ignore-signal=INT,CHLD", sys.executable, "-S", "-P", "-m", "underlay.hosts.namespace.launch")
    with subprocess.Popen(argv, env=environment(), stdin=subprocess.PIPE) as started:

        def hears() -> bool | NotYet:
            found = ignored_by(started.pid)
            return NotYet(f"it ignores {found}") if found else True

        try:
            until(hears, deadline_s=AMPLE, what="the start of the program")
        finally:
            started.kill()


def test_tests_hear_too() -> None:
    """This asks pytest to run the next test once more, as a shell would start it in the background."""
    inner = f"{__file__}::{test_child_that_fails_is_noticed.__name__}"
    options = ("-q", "-p", "no:cacheprovider", "--rootdir", str(REPOSITORY))
    argv = ("env", "--ignore-signal=INT,CHLD", sys.executable, "-m", "pytest", *options, inner)
    done = run(argv, timeout=60, check=False, env=environment(), cwd=REPOSITORY)
    assert done.ok, done.stdout


def test_child_that_fails_is_noticed() -> None:
    assert run(("false",), timeout=AMPLE, check=False).returncode == 1
    assert ignored_by(os.getpid()) == set()


def test_signal_ends_what_the_command_runs(tmp_path: Path) -> None:
    """Run by underlay.process, a program is in a session of its own: no terminal and no shell would end it."""
    code = (
        "import sys; from underlay.process import run; from underlay.signals import usual_signals\n"
        "usual_signals(); run(('sh', '-c', 'echo $$ > new; mv new pid; exec sleep 600'), timeout=600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL
    ) as started:
        note = tmp_path / "pid"
        until(lambda: note.exists() or NotYet("no note"), deadline_s=AMPLE, what="the start of the program")
        started.terminate()
        started.wait(AMPLE)
    assert not Path("/proc", note.read_text().strip()).exists()
