"""What Vagrant is asked, and what becomes of its answers: with a stand-in that says Vagrant's words."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from underlay.errors import NotReady
from underlay.hosts.vagrant.cli import client

LOCKED = "Vagrant can't use the requested machine because it is\nlocked! This means that another Vagrant process ..."
BUSY = "An action 'up' was attempted on the machine 'host2', but another process is already executing an action on it."


class StandIn:
    """A program named vagrant that notes down each call; the answers are of as many calls, the last one of all more."""

    def __init__(self, place: Path) -> None:
        self._calls = place / "calls"
        self._program = place / "vagrant"

    def answers(self, *answers: tuple[int, str]) -> None:
        """Let the calls end so: with an exit code, and what is said on standard output if good, else as an error."""
        lines = ["#!/bin/sh", f"echo >> {shlex.quote(str(self._calls))}"]
        lines.append(f"case $(wc -l < {shlex.quote(str(self._calls))}) in")
        for number, (code, said) in enumerate(answers, start=1):
            pattern = number if number < len(answers) else "*"
            lines.append(f"{pattern}) echo {shlex.quote(said)} >&{1 if code == 0 else 2}; exit {code};;")
        self._program.write_text("\n".join([*lines, "esac", ""]))
        self._program.chmod(0o755)

    @property
    def calls(self) -> int:
        """How often it was called."""
        return len(self._calls.read_text().splitlines())


@pytest.fixture
def vagrant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return StandIn(tmp_path)


@pytest.mark.parametrize("said", [LOCKED, BUSY])
def test_machine_that_another_vagrant_holds_is_waited_for(vagrant: StandIn, said: str) -> None:
    vagrant.answers((1, said), (1, said), (0, "Host host1"))
    assert client().ssh_configuration(patience_s=30).strip() == "Host host1"
    assert vagrant.calls == 3


def test_machine_that_another_vagrant_holds_for_ever_is_said(vagrant: StandIn) -> None:
    vagrant.answers((1, LOCKED))
    with pytest.raises(NotReady, match=r"because it is locked!.*\n?.*wait until the other vagrant"):
        client().ssh_configuration(patience_s=0.1)


def test_what_else_vagrant_says_is_told_at_once(vagrant: StandIn) -> None:
    vagrant.answers((1, "The provider could not be found."))
    with pytest.raises(NotReady, match=r"The provider could not be found\."):
        client().ssh_configuration(patience_s=30)
    assert vagrant.calls == 1
