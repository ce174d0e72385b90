"""What a unit test must not do: write where this machine's labs are, signal their processes, enter them.

It hears of files, signals and programs before they are opened, sent and started (PEP 578, Python's audit hooks),
refuses, and remembers: a refusal that the code under test has caught fails the test all the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from underlay.hosts.namespace import state
from underlay.hosts.vagrant import environment as vmenv
from underlay.hosts.vagrant import labs as vagrant

#: The variables that lead to labs, and to no other than the tests' own while tests run.
VARIABLES = (state.DIRECTORY_VARIABLE, state.RUN_VARIABLE, "VAGRANT_DOTFILE_PATH")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGING = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate",
    "os.utime", "shutil.rmtree",
}  # fmt: skip
_SIGNALLING = {"os.kill", "os.killpg"}
_STARTING = {"subprocess.Popen", "os.posix_spawn", "os.exec"}
#: Programs that find labs by the environment, and programs that are given processes.
_FINDING = {"lab", "vagrant"}
_ENTERING = {"nsenter", "kill"}
_MODULE = re.compile(r"underlay(\.\w+)*|(.*\W)?underlay\.(hosts|cli)\b.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Labs:
    """Where this machine's labs are: directories, the first word of their control groups, what leads to them."""

    places: tuple[Path, ...]
    groups: tuple[str, ...]
    values: frozenset[str]

    @classmethod
    def of_this_machine(cls) -> Labs:
        """Those that the environment leads to now, and those that it leads to by default."""
        states = {state.state_directory(), state.DEFAULT_DIRECTORY}
        runs = {state.run_directory(), state.DEFAULT_RUN_DIRECTORY}
        dot, handover = vagrant.dot_directory(), vagrant.handover_directory()
        kept = {directory / name for directory in states for name in ("labs", vmenv.files_directory().name)}
        networks = {run.with_name(f"{run.name}-vm") for run in runs}
        groups = tuple(f"{run.name}-" for run in runs)
        values = frozenset(map(str, (*states, *runs, dot)))
        return cls((*kept, *runs, *networks, dot, handover), groups, values)

    def place(self, path: Path) -> bool:
        """Whether a path is one of a lab's, or the control group of one."""
        if path.is_relative_to("/sys/fs/cgroup"):
            return any(part.startswith(self.groups) for part in path.parts)
        return any(path.is_relative_to(place) for place in self.places)

    def named(self, word: str) -> bool:
        """Whether a word of a command line names a place of a lab (``--net=/run/underlay/shop/net``)."""
        _, _, behind = word.partition("=")
        return any(text.startswith("/") and self.place(Path(text)) for text in (word, behind))


class Guard:
    """Hears what this process is about to do while it is on."""

    def __init__(self, labs: Labs, mark: str) -> None:
        """``mark`` is the end of what $UNDERLAY_RUN_DIR says to programs that tests start."""
        self._labs = labs
        self._mark = f"/{mark}\0".encode()
        self._pid = os.getpid()
        self._refused: list[str] = []
        self.on = True

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        """Refuse what reaches a lab; for sys.addaudithook."""
        if self.on and (check := _CHECKS.get(event)) is not None:
            for what in check(self, arguments):
                self._refuse(what)

    def signalled(self, descriptor: int, sent: int) -> None:
        """Refuse a signal to another's process by its descriptor, of which Python says nothing to audit hooks."""
        # -1: it has ended, and nothing will be sent (pidfd_open(2), linux kernel/fork.c).
        text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
        if (found := re.search(r"^Pid:\t(\d+)$", text, re.MULTILINE)) is not None and self.on:
            for what in self.signals((int(found[1]), sent)):
                self._refuse(what)

    def refused(self) -> list[str]:
        """Return what was refused since the last call."""
        found, self._refused = self._refused, []
        return found

    def _refuse(self, what: str) -> None:
        self._refused.append(what)
        pytest.fail(f"a unit test reached for what may be a lab of this machine: it {what}")

    def opens(self, arguments: Sequence[object]) -> Iterator[str]:
        """Say what is wrong with the opening of a file."""
        path, _, flags = arguments[:3]
        if isinstance(flags, int) and flags & _WRITING:
            yield from self.changes((path,))

    def changes(self, arguments: Sequence[object]) -> Iterator[str]:
        """Say what is wrong with a change of these paths."""
        for path in arguments:
            if isinstance(path, str | bytes | os.PathLike):
                found = Path(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - links are not followed
                if self._labs.place(found):
                    yield f"writes to {found}"

    def connects(self, arguments: Sequence[object]) -> Iterator[str]:
        """Say what is wrong with a connection: a socket below /proc/PID/root is a host's."""
        found = re.match(r"/proc/(\d+)/", str(arguments[1]))
        if found and not self._own(int(found[1])):
            yield f"connects to {arguments[1]}"

    def signals(self, arguments: Sequence[object]) -> Iterator[str]:
        """Say what is wrong with a signal; 0 is only a question (kill(2))."""
        pid, signal = arguments[:2]
        if isinstance(pid, int) and signal and not self._own(abs(pid)):
            yield f"sends signal {signal} to process {pid}, which no test has started"

    def starts(self, arguments: Sequence[object]) -> Iterator[str]:
        """Say what is wrong with the start of a program."""
        given, environment = arguments[1], arguments[-1]
        words = [given] if isinstance(given, str) else list(given) if isinstance(given, Sequence) else []
        argv = [os.fsdecode(word) for word in words if isinstance(word, str | bytes | os.PathLike)]
        line = " ".join(argv)
        names = {Path(word).name for word in argv}
        if any(self._labs.named(word) for word in argv):
            yield f"starts `{line}`, which names a place of a lab"
        if names & _ENTERING:
            pids = [int(number) for word in argv for number in re.findall(r"\b\d+$", word)]
            yield from (f"starts `{line}`, and no test has started {pid}" for pid in pids if not self._own(pid))
        if names & _FINDING or any(map(_MODULE.fullmatch, argv)):
            told = environment if isinstance(environment, Mapping) else os.environ
            astray = [name for name in VARIABLES if told.get(name, "") in {"", *self._labs.values}]
            yield from (f"starts `{line}`, and ${name} leads it to the machine's labs" for name in astray)

    def _own(self, pid: int) -> bool:
        """Whether a test started a process: itself, a descendant, an orphan. One that has gone harms nobody."""
        ancestor = pid
        try:
            while ancestor not in {0, 1, self._pid}:
                text = Path(f"/proc/{ancestor}/stat").read_text(errors="replace")
                ancestor = int(text[text.rindex(")") + 2 :].split()[1])
            return ancestor == self._pid or self._mark in Path(f"/proc/{pid}/environ").read_bytes() + b"\0"
        except PermissionError:
            return False
        except OSError:
            return True


_CHECKS: Mapping[str, Callable[[Guard, Sequence[object]], Iterator[str]]] = {
    "open": Guard.opens,
    "socket.connect": Guard.connects,
    **dict.fromkeys(_CHANGING, Guard.changes),
    **dict.fromkeys(_SIGNALLING, Guard.signals),
    **dict.fromkeys(_STARTING, Guard.starts),
}
