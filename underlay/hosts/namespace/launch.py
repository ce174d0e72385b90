"""Start one host: `python -m underlay.hosts.namespace.launch`, a process of its own: it forks and changes namespaces.

Reads an order as JSON on standard input; answers with one line of JSON on standard output: the host's first process, or
in words what went wrong. When the program that gave the order dies, so does everything here: the launcher by a signal
from the kernel, and the host, until it is complete, because nobody holds the other end of its pipe any more.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from underlay import libc
from underlay.errors import NotReady
from underlay.hosts.namespace import boot, wire
from underlay.signals import usual_signals

_GO = b"go"


@dataclass(frozen=True, slots=True)
class Order:
    """What to start, how to plug it in, by whom it was ordered, and for how many seconds one step may run."""

    spec: boot.Spec
    cable: wire.Cable
    parent: int
    timeout: float

    def to_json(self) -> str:
        """Write the order as JSON."""
        data = {"spec": self.spec.to_json(), "cable": asdict(self.cable)}
        return json.dumps({**data, "parent": self.parent, "timeout": self.timeout})

    @classmethod
    def from_json(cls, text: str) -> Order:
        """Read what to_json wrote."""
        data = json.loads(text)
        spec, cable = boot.Spec.from_json(data["spec"]), wire.Cable(**data["cable"])
        return cls(spec, cable, int(data["parent"]), float(data["timeout"]))


@dataclass(frozen=True, slots=True)
class Answer:
    """The number of the host's first process, or why there is none."""

    pid: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Pipe:
    reading: int
    writing: int

    @classmethod
    def make(cls) -> _Pipe:
        return cls(*os.pipe())

    def keep_reading(self) -> int:
        os.close(self.writing)
        return self.reading

    def keep_writing(self) -> int:
        os.close(self.reading)
        return self.writing


def launch(order: Order) -> Answer:
    """Start a host and return when its supervisor has been started and its cable is plugged in."""
    libc.die_with_parent()
    if os.getppid() != order.parent:  # it ended before the line above
        return Answer(0, "the program that ordered this host has ended")
    born, go, said = _Pipe.make(), _Pipe.make(), _Pipe.make()
    launcher = os.getpid()
    middle = os.fork()
    if middle == 0:
        _middle(order, launcher, born, go, said)
    words, number, release = said.keep_reading(), born.keep_reading(), go.keep_writing()
    pid = int(_read_all(number) or b"0")
    os.waitpid(middle, 0)
    unplugged = ""
    if pid:
        try:
            wire.plug(order.cable, pid, timeout=order.timeout)
            os.write(release, _GO)
        except NotReady as error:
            unplugged = f"plug in the cable: {error}"
        except BrokenPipeError:
            unplugged = "it ended before its cable was plugged in"
    os.close(release)  # without the word, a host that still waits ends here
    # This pipe closes by itself when the supervisor takes the place of our code; what the host said of its own failure
    # explains more than that its cable could not be plugged in.
    failed = _read_all(words).decode(errors="replace") or unplugged
    return Answer(0 if failed else pid, failed)


def _middle(order: Order, launcher: int, born: _Pipe, go: _Pipe, said: _Pipe) -> None:
    # The pid namespace begins with the next fork, so the process that leaves the machine's namespaces is not the host's
    # first one. It ends at once; what it forked is adopted by the machine's init.
    words, number, waiting = said.keep_writing(), born.keep_writing(), go.keep_reading()
    try:
        libc.die_with_parent()
        if os.getppid() != launcher:
            os._exit(1)
        log = os.open(
            Path(order.spec.directory, "console.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        os.dup2(log, sys.stdout.fileno())  # or whoever reads our standard output would wait for the host to end
        os.dup2(log, sys.stderr.fileno())
        boot.enter_namespaces(order.spec)
        pid = os.fork()
        if pid:
            os.write(number, str(pid).encode())
            os._exit(0)
        os.close(number)
        boot.become_host(order.spec, lambda: _wait_for_cable(waiting), log)
    except boot.StepError as error:
        os.write(words, str(error).encode())
    except BaseException as error:
        # Whatever it is: this process is a fork in the middle of another one's stack and must not run on.
        os.write(words, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(1)


def _wait_for_cable(waiting: int) -> None:
    if os.read(waiting, len(_GO)) != _GO:
        os._exit(1)


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def main() -> int:
    """Read the order, start the host, answer."""
    usual_signals()
    answer = launch(Order.from_json(sys.stdin.read()))
    print(json.dumps(asdict(answer)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
