from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from underlay.errors import Exit, NotReady
from underlay.process import Completed, ProgramFailed, ProgramTimedOut, attach, run
from underlay.signals import Stopped
from underlay.wait import NotYet, until

#: Seconds; far more than any program here takes.
AMPLE = 20


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_output_and_exit_code() -> None:
    done = run(("sh", "-c", "echo out; echo err >&2"), timeout=AMPLE)
    assert (done.returncode, done.stdout, done.stderr, done.ok) == (0, "out\n", "err\n", True)
    assert done.argv == ("sh", "-c", "echo out; echo err >&2")
    assert 0 < done.seconds < AMPLE


def test_failure_says_where_what_and_the_last_words() -> None:
    with pytest.raises(ProgramFailed) as caught:
        run(("sh", "-c", "echo no such thing >&2; exit 7"), timeout=AMPLE, where="host1")
    assert caught.value.completed.returncode == 7
    assert caught.value.exit_code is Exit.NOT_READY
    (problem,) = caught.value.problems
    assert problem.where == "host1"
    assert problem.what == "`sh -c 'echo no such thing >&2; exit 7'` ended with exit code 7"
    assert problem.hint == "it said: no such thing"


def test_failure_of_a_program_that_says_nothing_on_stderr() -> None:
    with pytest.raises(ProgramFailed, match="it said: only here"):
        run(("sh", "-c", "echo only here; exit 1"), timeout=AMPLE)
    with pytest.raises(ProgramFailed, match="it said nothing"):
        run(("false",), timeout=AMPLE)


def test_last_words_are_not_all_words() -> None:
    with pytest.raises(ProgramFailed) as caught:
        run(python("import sys; sys.exit('x' * 100_000 + 'the end')"), timeout=AMPLE)
    assert len(str(caught.value)) < 5000
    assert str(caught.value).endswith("the end")


def test_failure_may_be_an_answer() -> None:
    done = run(("sh", "-c", "exit 3"), timeout=AMPLE, check=False)
    assert (done.returncode, done.ok) == (3, False)


def test_program_that_was_killed_has_the_signal_as_a_negative_code() -> None:
    done = run(("sh", "-c", "kill -9 $$"), timeout=AMPLE, check=False)
    assert done.returncode == -signal.SIGKILL


def test_standard_input() -> None:
    assert run(("cat",), timeout=AMPLE, stdin="ü\nß").stdout == "ü\nß"


def test_without_input_it_is_empty_and_not_our_own() -> None:
    """Asked in a program whose own standard input holds something."""
    asking = python("from underlay.process import run; print(repr(run(('cat',), timeout=10).stdout))")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    assert run(asking, timeout=AMPLE, stdin="typed by somebody", env=environment).stdout == "''\n"


def test_bytes_that_are_no_text() -> None:
    assert run(("printf", r"\377x"), timeout=AMPLE).stdout == "\ufffdx"


def test_much_output_on_both_streams() -> None:
    done = run(python("import sys; sys.stdout.write('o' * 10**6); sys.stderr.write('e' * 10**6)"), timeout=AMPLE)
    assert (len(done.stdout), len(done.stderr)) == (10**6, 10**6)


def test_environment_is_replaced_and_directory_changed(tmp_path: Path) -> None:
    done = run(("/bin/sh", "-c", "echo $WORD$HOME; pwd"), timeout=AMPLE, env={"WORD": "x"}, cwd=tmp_path)
    assert done.stdout == f"x\n{tmp_path.resolve()}\n"


def test_missing_program_is_named() -> None:
    with pytest.raises(NotReady) as caught:
        run(("no-such-program", "x"), timeout=AMPLE, where="host1")
    (problem,) = caught.value.problems
    assert problem.where == "host1"
    assert "`no-such-program` is not installed" in problem.what
    assert "no-such-program" in problem.hint


def test_program_that_may_not_be_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says so too of a name that is nowhere in PATH, if one of its directories may not be searched."""
    program = tmp_path / "program"
    program.touch(mode=0o644)
    with pytest.raises(NotReady, match=r"/program` may not be run by you"):
        run((str(program),), timeout=AMPLE)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(NotReady, match="`program` is not installed"):
        attach(("program",))


def test_no_shell_reads_the_words() -> None:
    words = ("$HOME", "*", "a b", ";", "echo", "`id`")
    assert run(("printf", r"%s\n", *words), timeout=AMPLE).stdout.splitlines() == list(words)


def test_time_out_kills_the_children_too_and_says_so() -> None:
    started = time.monotonic()
    with pytest.raises(ProgramTimedOut) as caught:
        run(("sh", "-c", "sleep 600 & echo $! >&2; wait"), timeout=0.3, where="host1")
    assert time.monotonic() - started < AMPLE
    assert caught.value.timeout == 0.3
    (problem,) = caught.value.problems
    assert problem.where == "host1"
    assert "did not end within 0.3 s and was killed" in problem.what
    child = int(problem.hint.removeprefix("it said: "))
    until(lambda: gone(child), deadline_s=AMPLE, what=f"the end of process {child}")


def test_time_out_holds_although_a_child_left_the_group_with_our_pipe() -> None:
    started = time.monotonic()
    with pytest.raises(ProgramTimedOut) as caught:
        run(("sh", "-c", "setsid sleep 30 & echo $! >&2; wait"), timeout=0.2)
    assert time.monotonic() - started < AMPLE
    (problem,) = caught.value.problems
    os.kill(int(problem.hint.removeprefix("it said: ")), signal.SIGKILL)


def gone(pid: int) -> bool | NotYet:
    """Whether a process has ended; one that nobody has asked for its exit code yet has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return True if state in {"Z", "X"} else NotYet(f"state {state}")


def test_error_of_ours_while_it_runs_kills_it(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Ctrl-C in the middle of a run leaves no program behind."""
    note = tmp_path / "pid"

    def interrupt() -> None:
        until(lambda: True if note.exists() else NotYet("nothing"), deadline_s=AMPLE, what="the program's start")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    # Whoever started the tests in the background has had SIGINT ignored, which is inherited (signal(7)).
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(("sh", "-c", f"echo $$ > {note}.new; mv {note}.new {note}; exec sleep 600"), timeout=AMPLE)
    thread.join()
    pid = int(note.read_text())
    until(lambda: gone(pid), deadline_s=AMPLE, what=f"the end of process {pid}")


def test_dry_run_starts_nothing_and_says_what_it_would(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "underlay.process")
    made = tmp_path / "made"
    done = run(("touch", str(made)), timeout=AMPLE, dry_run=True)
    assert done == Completed(("touch", str(made)), 0, "", "", 0.0)
    assert not made.exists()
    assert caplog.messages == [f"would run: touch {made}"]


def test_log_line_holds_the_command_and_not_its_input(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "underlay.process")
    run(("cat", "-"), timeout=AMPLE, stdin="a password")
    (line,) = caplog.messages
    assert line.startswith("cat - -> 0 in ")
    assert "password" not in caplog.text


def test_input_is_not_in_the_message_of_a_failure() -> None:
    with pytest.raises(ProgramFailed) as caught:
        run(("sh", "-c", "exit 1"), timeout=AMPLE, stdin="a password")
    assert "password" not in str(caught.value)


def test_attached_program_has_our_streams_and_gives_its_code(capfd: pytest.CaptureFixture[str]) -> None:
    assert attach(("sh", "-c", "echo seen; exit 4")) == 4
    assert capfd.readouterr().out == "seen\n"


def test_attached_program_that_was_killed() -> None:
    assert attach(("sh", "-c", "kill -9 $$")) == 128 + signal.SIGKILL


def test_attached_program_that_is_missing() -> None:
    with pytest.raises(NotReady, match="is not installed"):
        attach(("no-such-program",), where="host1")


#: A program as tox and pytest are one: it has started something in a session of its own, and tidies up after Ctrl-C.
_SUITE = """
from pathlib import Path
from underlay.process import run
try:
    run(("sh", "-c", "echo $$ > inner.new; mv inner.new inner; exec sleep 600"), timeout=600)
except KeyboardInterrupt as error:
    Path("tidied").write_text(type(error).__name__)
    raise SystemExit(7)
"""
#: The command that started it, as `./lab test` does.
_COMMAND = """
import sys
from underlay.ending import ending
from underlay.process import attach
from underlay.signals import usual_signals
usual_signals()
try:
    sys.exit(attach((sys.executable, "-c", sys.argv[1]), apart=True))
except KeyboardInterrupt as error:
    sys.exit(ending(error))
"""


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "KILL"])
def test_what_runs_apart_ends_tidily_whatever_ends_the_command(name: str, tmp_path: Path) -> None:
    number = signal.Signals[f"SIG{name}"]
    inner, tidied = tmp_path / "inner", tmp_path / "tidied"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", _COMMAND, _SUITE], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    ) as command:
        until(lambda: inner.exists() or NotYet("nothing"), deadline_s=AMPLE, what="the innermost program's start")
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
        started = [int(pid) for pid in (*children, inner.read_text())]
        command.send_signal(number)
        try:
            code = command.wait(AMPLE)
            for pid in started:
                until(partial(gone, pid), deadline_s=AMPLE, what=f"the end of process {pid}")
        finally:
            for pid in (command.pid, *started):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    assert code == (-number if name == "KILL" else 128 + number)
    assert tidied.read_text() == "KeyboardInterrupt"


#: Has a program wait until its parent does: a signal that comes while that still starts it is nobody's to pass on.
_ONCE_AWAITED = """
import os
while open(f"/proc/{os.getppid()}/stat").read().rpartition(")")[2].split()[0] != "S":
    pass
"""


def test_attached_program_is_told_to_end_and_waited_for() -> None:
    code = f"{_ONCE_AWAITED}import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
    code += "os.kill(os.getppid(), signal.SIGTERM)\nsignal.pause()"
    with pytest.raises(Stopped) as caught:
        attach(python(code), env=dict(os.environ))
    assert caught.value.number == signal.SIGTERM


def test_attached_program_answers_ctrl_c_itself() -> None:
    """The terminal gives Ctrl-C to both; the program may have its own idea of it, and its exit code counts."""
    code = f"{_ONCE_AWAITED}import signal, sys\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(9))\n"
    code += "os.kill(os.getppid(), 2)\n"
    code += "os.kill(os.getpid(), signal.SIGINT)\nsignal.pause()"
    assert attach(python(code), env=dict(os.environ)) == 9


def test_exit_code_is_not_lost_to_a_signal_that_comes_when_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, ends = os.waitpid, threading.Event()
    other = threading.Thread(target=ends.wait)  # it may be the one that the kernel gives the signal to

    def waitpid(pid: int, options: int) -> tuple[int, int]:
        ended = taken(pid, options)
        os.kill(os.getpid(), signal.SIGINT)
        ends.wait(0.05)  # until whoever was given the signal has said so
        return ended

    monkeypatch.setattr(os, "waitpid", waitpid)
    other.start()
    try:
        assert attach(python("raise SystemExit(9)"), env=dict(os.environ)) == 9
    finally:
        ends.set()
        other.join()
