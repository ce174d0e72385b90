"""Processes that a signal has stopped are found, with their descendants, and let go on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from provision import processes
from underlay.wait import NotYet, until

LIMIT_S = 10.0


def wait_for(what: str, wanted: set[int], pid: int) -> None:
    def seen() -> bool | NotYet:
        now = set(processes.frozen(pid))
        return now == wanted or NotYet(f"{now}")

    until(seen, deadline_s=LIMIT_S, what=what, where="this machine")


@pytest.fixture
def parent() -> Iterator[tuple[int, int]]:
    """A shell and its child."""
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        child = int(shell.stdout.readline())
        yield shell.pid, child
        for pid in (child, shell.pid):
            os.kill(pid, signal.SIGKILL)


def test_nothing_of_a_running_program_is_frozen(parent: tuple[int, int]) -> None:
    shell, child = parent
    assert tuple(processes.family(shell)) == (shell, child)
    assert processes.frozen(shell) == ()


def test_a_child_alone_that_is_frozen_is_found_and_thawed(parent: tuple[int, int]) -> None:
    shell, child = parent
    os.kill(child, signal.SIGSTOP)
    wait_for("the child stopped", {child}, shell)
    processes.thaw(shell)
    wait_for("nothing stopped", set(), shell)


def test_all_that_is_frozen_is_thawed(parent: tuple[int, int]) -> None:
    for pid in parent:
        os.kill(pid, signal.SIGSTOP)
    wait_for("both stopped", set(parent), parent[0])
    processes.thaw(parent[0])
    wait_for("nothing stopped", set(), parent[0])


def test_what_has_ended_is_neither() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    assert tuple(processes.family(ended.pid)) == ()
    assert processes.frozen(ended.pid) == ()
    processes.thaw(ended.pid)
