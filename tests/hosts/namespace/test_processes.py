from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest

from underlay.hosts.namespace import processes


@pytest.fixture
def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


def test_this_process_is_alive_and_another_start_or_boot_is_not_it() -> None:
    me = processes.identify(os.getpid())
    assert me is not None
    assert processes.alive(me)
    assert not processes.alive(replace(me, started=me.started + 1))
    assert not processes.alive(replace(me, boot="another"))


def test_a_process_is_killed_and_its_zombie_counts_as_gone(sleeper: subprocess.Popen[bytes]) -> None:
    with sleeper:
        process = processes.identify(sleeper.pid)
        assert process is not None
        assert processes.kill(process, deadline_s=20)
        assert not processes.alive(process)  # not reaped yet
        assert processes.identify(sleeper.pid) is None
    assert processes.kill(process, deadline_s=20)
    assert sleeper.returncode == -9


def test_a_process_that_took_over_the_number_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    with sleeper:
        process = processes.identify(sleeper.pid)
        assert process is not None
        assert processes.kill(replace(process, started=process.started - 1), deadline_s=20)
        assert sleeper.poll() is None
        sleeper.kill()


def test_a_command_with_spaces_and_parentheses_is_no_trouble() -> None:
    code = "open('/proc/self/comm', 'w').write('a) S 1 (b'); print('ready', flush=True); input()"
    with subprocess.Popen(["python3", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as odd:
        assert odd.stdout is not None
        assert odd.stdout.readline() == b"ready\n"
        assert processes.command_of(odd.pid) == "a) S 1 (b"
        process = processes.identify(odd.pid)
        assert process is not None
        assert process.started >= (processes.identify(os.getpid()) or process).started
        odd.kill()


def test_who_uses_a_namespace_is_found() -> None:
    own = processes.namespace_of(os.getpid(), "net")
    assert own is not None
    assert os.getpid() in processes.using_namespace("net", frozenset({own}))
    assert processes.using_namespace("net", frozenset()) == ()
