from __future__ import annotations

from pathlib import Path

import pytest

from tests.plans import shop
from underlay.errors import InputError, NotReady
from underlay.hosts.base import Lab
from underlay.hosts.namespace.machines import NamespaceLab, host_argv
from underlay.hosts.namespace.state import DIRECTORY_VARIABLE, HostState, LabState, store
from underlay.topology import render_plan

PLAN = shop.plan()
ENTER = ("nsenter", "--target=42", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
PATH = "PATH=/opt/underlay/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = (
    *("/usr/bin/setpriv", "--pdeathsig", "HUP", "--"),
    "/usr/bin/env",
    "-i",
    "-C",
    "/vagrant",
    PATH,
    "HOME=/root",
    "LANG=C.UTF-8",
    "PYTHONPATH=/vagrant",
    "PYTHONSAFEPATH=1",
    "PYTHONPYCACHEPREFIX=/var/cache/underlay/python",
)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    return NamespaceLab(store(PLAN.lab), PLAN)


def test_a_command_enters_all_namespaces_with_the_hosts_environment() -> None:
    argv = host_argv(42, ["id", "-u"], namespace=None, tty=False, term="dumb")
    assert argv == (*ENTER, *ENVIRONMENT, "TERM=dumb", "id", "-u")


def test_a_network_namespace_is_entered_on_the_host() -> None:
    argv = host_argv(42, ["ip", "link"], namespace="edge-1", tty=False, term="dumb")
    assert argv[-6:] == ("ip", "netns", "exec", "edge-1", "ip", "link")


def test_a_terminal_is_the_hosts_own_and_arguments_stay_whole() -> None:
    argv = host_argv(42, ["echo", "a b", "$HOME"], namespace="edge-1", tty=True, term="xterm")
    assert argv[-7:-3] == ("TERM=xterm", "script", "--quiet", "--return")
    assert argv[-3:] == ("--command", "ip netns exec edge-1 echo 'a b' '$HOME'", "/dev/null")


def test_a_lab_shows_the_plans_hosts_and_the_outside(lab: Lab) -> None:
    assert [(host.name, str(host.address)) for host in lab.hosts.values()] == [
        ("host1", "192.168.56.11"),
        ("host2", "192.168.56.12"),
    ]
    assert str(lab.outside.address) == "192.168.56.1"


def test_a_lab_that_is_down_says_how_to_bring_it_up(lab: Lab) -> None:
    for machine in (lab.hosts["host1"], lab.outside):
        with pytest.raises(NotReady, match=r"the lab of-the-tests is not up\n    hint: bring it up: \./lab up"):
            machine.run(["true"])


def test_a_host_that_is_off_says_so(lab: Lab) -> None:
    hosts = tuple(HostState(host.name, "") for host in PLAN.hosts)
    place = store(PLAN.lab)
    place.directory.mkdir(parents=True)
    place.write(LabState(PLAN.lab, render_plan(PLAN), "/image", "/repository", "", (), hosts))
    assert not lab.hosts["host1"].running()
    with pytest.raises(NotReady, match="host1: host1 is not running"):
        lab.hosts["host1"].run(["true"])


def test_there_are_no_namespaces_outside(lab: Lab) -> None:
    with pytest.raises(InputError, match="there is no namespace `edge-1` outside"):
        lab.outside.run(["true"], namespace="edge-1")
