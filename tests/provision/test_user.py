"""Users of the system: what is somebody else's is not taken for ours."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from provision.kernel.network import Network
from provision.marks import Mark
from provision.resources.user import User, discover
from provision.supervisor import Supervisor
from provision.system import NotOurs, System
from underlay.topology import Timeouts

_TIMEOUTS = Timeouts(connect=1, command=1, ready=1, cache=1)


@pytest.fixture
def somebody() -> pwd.struct_passwd:
    """The user that runs the tests."""
    return pwd.getpwuid(os.getuid())


def system(mark: Mark, tmp_path: Path) -> System:
    return System("host1", mark, _TIMEOUTS, Network("host1"), Supervisor("host1", 1, tmp_path / "socket"))


def test_somebodys_user_of_that_name_is_in_the_way(somebody: pwd.struct_passwd, tmp_path: Path) -> None:
    here = system(Mark("phase9", 9), tmp_path)
    with pytest.raises(NotOurs) as caught:
        User(somebody.pw_name).observe(here)
    assert caught.value.remedy.endswith(f"./lab exec host1 -- userdel {somebody.pw_name}")
    assert somebody.pw_name not in {found.identity.removeprefix("user ") for found in discover(here, frozenset())}


def test_user_that_is_not_there_is_missing(tmp_path: Path) -> None:
    assert User("nobody-of-this-name").observe(system(Mark("phase9", 9), tmp_path)) == "is missing"
