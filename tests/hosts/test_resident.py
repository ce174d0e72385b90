"""Commands through a helper end as they would without it; what the helper starts and holds goes with it.

The helper runs here as any program, in a directory of its own; on a host it is the same one.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from underlay import process
from underlay.errors import NotReady, Problem
from underlay.hosts.resident import HELPER, ResidentHost
from underlay.process import Completed, ProgramFailed, ProgramTimedOut
from underlay.repository import REPOSITORY
from underlay.topology import Timeouts
from underlay.wait import NotYet, until

#: Seconds; far more than any command here takes.
AMPLE = 30.0
#: Characters, each of two bytes: far more than a pipe holds.
LARGE = 1_500_000

SCRIPT = """\
import os, sys
print(__name__, sys.argv, os.getcwd() == sys.argv[1], sys.path[0] == os.path.dirname(__file__))
print("on stderr", file=sys.stderr)
sys.exit(int(sys.argv[2]))
"""


class Here:
    """This machine as a host: it can be off, and it counts the helpers that were started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.up = True
        self.helpers = 0
        self.words: Sequence[str] = ()
        self.connections: list[int] = []

    @property
    def name(self) -> str:
        return "here"

    timeouts = Timeouts(connect=1, command=5, ready=5, cache=1)

    @property
    def address(self) -> IPv4Address:
        return IPv4Address("127.0.0.1")

    def argv(self, command: Sequence[str], *, namespace: str | None = None, tty: bool = False) -> tuple[str, ...]:
        del namespace, tty
        if tuple(command) == HELPER:
            self.helpers += 1
            command = self.words or (sys.executable, *command[1:])
        path = f"PATH={Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        variables = (path, f"PYTHONPATH={REPOSITORY}", "LANG=C.UTF-8", "OF_THE_HOST=yes")
        return ("env", "-i", "-C", str(self.directory), *variables, *command)

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float | None = None,
        check: bool = True,
        stdin: str | None = None,
        namespace: str | None = None,
    ) -> Completed:
        if not self.up:
            raise NotReady(Problem("here", "here is not running", "bring it up"))
        return process.run(self.argv(command), timeout=timeout or AMPLE, check=check, stdin=stdin)

    def running(self) -> bool:
        return self.up

    def power_off(self) -> None:
        self.up = False

    def power_on(self) -> None:
        self.up = True
        for pid in self.connections:  # as ssh's shared connection is dropped, behind which an earlier machine was
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def facts(self) -> Mapping[str, str]:
        return {"kind": "here"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Here:
    return Here(tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="module")
def host(here: Here) -> Iterator[ResidentHost]:
    lent = ResidentHost(here, AMPLE)
    yield lent
    lent.close()


def helper_of(host: ResidentHost) -> int:
    """The process that commands are children of."""
    return int(host.run(("sh", "-c", "echo $PPID")).stdout)


def gone(pid: int) -> Callable[[], bool | NotYet]:
    def probe() -> bool | NotYet:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        return True if state == "Z" else NotYet(f"process {pid} is {state}")

    return probe


@pytest.mark.parametrize(
    "line",
    [
        "echo out; echo err >&2",
        "exit 1",
        "echo broken >&2; exit 255",
        "kill -KILL $$",
        "kill -TERM $$",
        "cat",
        "pwd; env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= | sort; umask; ls /proc/self/fd",
        "ps -o pid=,pgid=,sid= -p $$ | awk '{ print ($1 == $2 && $2 == $3) }'",
        "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status",
        r"printf 'one\r\ntwo\rthree\377\n'",
    ],
)
def test_program_ends_as_it_does_without_the_helper(here: Here, host: ResidentHost, line: str) -> None:
    command = ("sh", "-c", line)
    for stdin in (None, "", "some text, ä\n"):
        expected, seen = (which.run(command, check=False, stdin=stdin) for which in (here, host))
        assert (seen.returncode, seen.stdout, seen.stderr) == (expected.returncode, expected.stdout, expected.stderr)
        assert seen.argv == command
        assert 0 < seen.seconds < AMPLE


@pytest.mark.parametrize("code", [0, 1, 255])
def test_python_runs_what_it_would_and_ends_as_it_would(here: Here, host: ResidentHost, code: int) -> None:
    for name in ("script.py", "package/__main__.py", "package/module.py"):
        path = here.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(SCRIPT, encoding="utf-8")
    for words in ((str(here.directory / "script.py"),), ("-m", "package"), ("-m", "package.module")):
        command = ("python3", *words, str(here.directory), str(code))
        expected, seen = (which.run(command, check=False) for which in (here, host))
        assert (seen.returncode, seen.stderr) == (code, "on stderr\n") == (expected.returncode, expected.stderr)
        assert seen.stdout.split()[:2] == expected.stdout.split()[:2]
        assert seen.stdout.split()[2:] == expected.stdout.split()[2:]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("raise SystemExit('said at the end')", 1),
        ("raise SystemExit", 0),
        ("raise SystemExit(256 + 3)", 3),
        ("1 / 0", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9),
        ("import os; print('never seen'); os._exit(4)", 4),
        ("import signal; print(signal.getsignal(signal.SIGPIPE), signal.getsignal(signal.SIGINT))", 0),
        ("import sys; print(sys.stdin.read().upper(), end='')", 0),
        ("import sys; print('ä', sys.stdout.encoding, sys.stdin.encoding, sys.stderr.errors)", 0),
        ("import atexit; atexit.register(print, 'at exit')", 0),
    ],
)
def test_python_says_the_same_of_each_end(here: Here, host: ResidentHost, body: str, code: int) -> None:
    (here.directory / "script.py").write_text(body, encoding="utf-8")
    command = ("python3", str(here.directory / "script.py"))
    expected, seen = (which.run(command, check=False, stdin="some text") for which in (here, host))
    assert (seen.returncode, seen.stdout) == (code, expected.stdout)
    assert expected.returncode == code
    assert seen.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]


def test_command_of_phases_is_the_real_one(here: Here, host: ResidentHost) -> None:
    command = ("python3", "-m", "provision", "no-such-verb")
    expected, seen = (which.run(command, check=False) for which in (here, host))
    assert (seen.returncode, seen.stdout, seen.stderr) == (2, "", expected.stderr)


def test_what_one_command_changes_the_next_does_not_see(host: ResidentHost, here: Here) -> None:
    lines = "import os, sys, json\nprint(len(os.environ), hasattr(json, 'changed'), __name__)\n"
    lines += "os.environ['CHANGED'] = 'yes'; json.changed = True; os.chdir('/')\n"
    (here.directory / "script.py").write_text(lines, encoding="utf-8")
    first, second = (host.run(("python3", "script.py")).stdout for _ in range(2))
    assert first == second
    assert "False" in first


def test_program_that_is_not_there_is_told_as_by_a_shell(host: ResidentHost) -> None:
    seen = host.run(("no-such-program",), check=False)
    assert (seen.returncode, seen.stderr) == (127, "no-such-program: No such file or directory\n")
    assert host.run(("/",), check=False).returncode == 126


def test_failure_says_where_and_what(host: ResidentHost) -> None:
    with pytest.raises(ProgramFailed) as caught:
        host.run(("sh", "-c", "echo no such thing >&2; exit 7"))
    (problem,) = caught.value.problems
    assert (problem.where, problem.hint) == ("here", "it said: no such thing")


def test_namespace_is_entered_by_ip(host: ResidentHost) -> None:
    done = host.run(("true",), namespace="there", check=False)
    assert not done.ok
    assert "there" in done.stderr  # by ip, or whoever says that there is no ip


def test_much_goes_both_ways(host: ResidentHost) -> None:
    text = "ä" * LARGE
    assert host.run(("cat",), stdin=text).stdout == text
    assert host.run(("sh", "-c", "cat >&2"), stdin=text).stderr == text
    assert host.run(("true",), stdin=text).ok  # which reads nothing of it


def test_much_goes_both_ways_at_once(host: ResidentHost) -> None:
    text = "ä" * LARGE
    with ThreadPoolExecutor(4) as pool:
        said = [done.stdout for done in pool.map(lambda _: host.run(("cat",), stdin=text), range(8))]
    assert all(each == text for each in said)


def test_what_takes_too_long_is_killed_with_its_children(here: Here, host: ResidentHost) -> None:
    before = here.helpers
    with pytest.raises(ProgramTimedOut, match=r"did not end within 0\.5 s and was killed") as caught:
        host.run(("sh", "-c", "sleep 60 & echo $! >late; echo so far; wait"), timeout=0.5)
    assert "it said: so far" in str(caught.value)
    child = int((here.directory / "late").read_text())
    until(gone(child), deadline_s=AMPLE, what="the end of the child")
    assert host.run(("true",)).ok
    assert here.helpers == before


def test_child_in_the_background_is_waited_for_while_it_can_still_say_something(host: ResidentHost) -> None:
    assert host.run(("sh", "-c", "(sleep 0.3; echo later) & echo now")).stdout == "now\nlater\n"
    with pytest.raises(ProgramTimedOut):
        host.run(("sh", "-c", "sleep 60 & echo now"), timeout=0.5)
    # One that left the group cannot be killed; it is not waited for either.
    with pytest.raises(ProgramTimedOut, match="it said: now"):
        host.run(("sh", "-c", "setsid sleep 5 & echo now"), timeout=0.5)
    assert host.run(("sh", "-c", "sleep 5 >/dev/null 2>&1 & echo now")).stdout == "now\n"


def test_commands_run_at_the_same_time(here: Here, host: ResidentHost) -> None:
    assert host.run(("true",)).ok
    before = here.helpers
    os.mkfifo(here.directory / "fifo")
    commands = (("sh", "-c", "cat fifo"), ("sh", "-c", "echo through >fifo"), *[("echo", str(n)) for n in range(20)])
    with ThreadPoolExecutor(len(commands)) as pool:
        said = [done.stdout for done in pool.map(host.run, commands)]
    assert said == ["through\n", "", *(f"{number}\n" for number in range(20))]
    assert here.helpers == before


def test_helper_that_dies_is_one_error_and_is_started_anew(here: Here, host: ResidentHost) -> None:
    pid, before = helper_of(host), here.helpers
    killer = threading.Timer(0.2, os.kill, (pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(NotReady, match="the connection broke while `sleep 3` ran"):
        host.run(("sleep", "3"))
    killer.join()
    assert host.run(("echo", "again")).stdout == "again\n"
    assert here.helpers == before + 1
    os.kill(helper_of(host), signal.SIGKILL)
    until(lambda: _answers(host), deadline_s=AMPLE, what="another helper")
    assert here.helpers == before + 2


def _answers(host: ResidentHost) -> bool | NotYet:
    try:
        return host.run(("true",)).ok
    except NotReady as error:
        return NotYet(str(error))


def test_power_cut_ends_the_helper_and_a_host_that_is_off_says_so(here: Here, host: ResidentHost) -> None:
    pid = helper_of(host)
    host.power_off()
    until(gone(pid), deadline_s=AMPLE, what="the end of the helper")
    here.words = ("false",)
    with pytest.raises(NotReady, match="here is not running"):
        host.run(("true",))
    assert not host.running()
    here.words = ()
    host.power_on()
    here.connections.append(helper_of(host))
    host.power_on()
    here.connections.clear()
    assert host.run(("true",)).ok


def test_helper_that_cannot_start_says_why(here: Here, host: ResidentHost) -> None:
    host.close()
    here.words = ("sh", "-c", "echo no Python here >&2; exit 1")
    with pytest.raises(NotReady, match=r"the connection broke while `python3 -m provision\.host\.resident` ran"):
        host.run(("true",))
    with pytest.raises(NotReady, match="it said: no Python here"):
        host.run(("true",))
    here.words = ()


def test_nothing_is_left_when_it_is_closed(here: Here, host: ResidentHost) -> None:
    pid = helper_of(host)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(host.run, ("sh", "-c", "echo $$ >child; exec sleep 60"))
        file = here.directory / "child"
        begun = until(
            lambda: int(file.read_text()) if file.exists() and file.read_text() else NotYet("no file"),
            deadline_s=AMPLE,
            what="its begin",
        )
        host.close()
        with pytest.raises(NotReady, match="the connection broke"):
            under_way.result(AMPLE)
    for each in (pid, begun):
        until(gone(each), deadline_s=AMPLE, what=f"the end of process {each}")
    host.close()


def test_helper_ends_with_its_input_and_with_it_what_runs(tmp_path: Path) -> None:
    """A message says so long as it is; a caller that goes away in the middle of one takes everything with it."""
    said = json.dumps({"id": 1, "argv": ["sleep", "60"], "stdin": None, "timeout": AMPLE, "namespace": None}).encode()
    helper = subprocess.Popen(
        (sys.executable, *HELPER[1:]), cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with helper:
        assert helper.stdin is not None
        assert helper.stdout is not None
        helper.stdin.write(struct.pack(">Q", len(said)) + said + b"\0\0")
        helper.stdin.flush()

        def begun() -> int | NotYet:
            children = Path(f"/proc/{helper.pid}/task/{helper.pid}/children").read_text().split()
            return int(children[0]) if children else NotYet("no child")

        child = until(begun, deadline_s=AMPLE, what="the command")
        helper.stdin.close()
        assert helper.wait(AMPLE) == 0
        until(gone(child), deadline_s=AMPLE, what="the end of the command")
