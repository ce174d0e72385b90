from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

import pytest
from testinfra.host import Host

from underlay import process
from underlay.hosts.backend import MachineBackend
from underlay.process import Completed, ProgramTimedOut
from underlay.topology import Timeouts


class Here:
    """This machine as a Machine, so that the backend runs for real."""

    name = "here"
    address = IPv4Address("127.0.0.1")
    timeouts = Timeouts(connect=1, command=1, ready=1, cache=1)

    def argv(self, command: Sequence[str], *, namespace: str | None = None, tty: bool = False) -> tuple[str, ...]:
        assert not tty
        assert namespace is None
        return tuple(command)

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float | None = None,
        check: bool = True,
        stdin: str | None = None,
        namespace: str | None = None,
    ) -> Completed:
        argv = self.argv(command, namespace=namespace)
        return process.run(argv, timeout=timeout or 0.5, check=check, stdin=stdin, where=self.name)


def connect(*enter: str, place: str = "") -> Host:
    return Host(MachineBackend(Here(), enter, place))


def test_arguments_are_quoted_and_all_output_comes_back() -> None:
    done = connect().run("printf %s %s; echo ärger >&2; exit 3", "%s", "a 'b' $HOME")
    assert (done.rc, done.stdout, done.stderr) == (3, "a 'b' $HOME", "ärger\n")


def test_a_percent_sign_without_arguments_is_left_alone() -> None:
    assert connect().run("date -d @0 -u +%Y").stdout == "1970\n"


def test_testinfras_modules_work() -> None:
    here = connect()
    assert here.file("/etc/passwd").is_file
    assert here.interface("lo").exists


def test_a_place_is_entered_and_named() -> None:
    there = connect("env", "PLACE=edge-1", place="edge-1")
    assert there.run("echo $PLACE").stdout == "edge-1\n"
    assert there.backend.get_hostname() == "here/edge-1"


def test_a_command_that_hangs_is_ended() -> None:
    with pytest.raises(ProgramTimedOut, match=r"did not end within 0\.5 s"):
        connect().run("sleep 30")
