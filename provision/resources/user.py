"""Users of the system, one for each service (useradd(8), passwd(5)).

Processes of one user may trace each other (ptrace(2), "Ptrace access mode checking") and read each other's files. Two
services of one user would share what the rules of the network keep apart.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from provision.marks import Mark
from provision.resource import Command, Found, Resource, Step
from provision.system import NotOurs, System
from underlay.wait import NotYet, until

_NOWHERE, _NO_SHELL = "/nonexistent", "/usr/sbin/nologin"


@dataclass(frozen=True, slots=True)
class User(Resource):
    """A user without a home, a shell or a password, with a group of its own of the same name."""

    name: str

    @property
    def identity(self) -> str:
        """See Resource."""
        return _identity(self.name)

    @property
    def batched(self) -> bool:
        """See Resource."""
        return True

    def observe(self, system: System) -> str | None:
        """See Resource."""
        try:
            entry = pwd.getpwnam(self.name)
        except KeyError:
            if _is_group(self.name):
                raise NotOurs(system.host, f"a group {self.name}", ("groupdel", self.name)) from None
            return "is missing"
        if entry.pw_gecos != system.mark.comment:
            raise NotOurs(system.host, f"a user {self.name}", ("userdel", self.name))
        if (entry.pw_dir, entry.pw_shell) != (_NOWHERE, _NO_SHELL):
            return f"has the home {entry.pw_dir} and the shell {entry.pw_shell}"
        return None

    def apply(self, system: System) -> None:
        """See Resource."""
        try:
            pwd.getpwnam(self.name)
        except KeyError:
            system.run(*self._add(system.mark))
        else:
            system.run("usermod", "--home", _NOWHERE, "--shell", _NO_SHELL, self.name)

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (Command(self._add(mark)),)

    def _add(self, mark: Mark) -> tuple[str, ...]:
        return ("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", _NOWHERE,
                "--shell", _NO_SHELL, "--comment", mark.comment, self.name)  # fmt: skip


def belonging_to(owner: str) -> tuple[str, ...]:
    """Return what a thing of ``owner`` stands on: a stranger's user of that name is given nothing, and runs nothing."""
    return () if owner == "root" or owner.isdecimal() else (_identity(owner),)


def discover(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find the users that carry our mark."""
    for entry in pwd.getpwall():
        if entry.pw_gecos == system.mark.comment:
            yield Found(_identity(entry.pw_name), _remover(entry.pw_name))


def _identity(name: str) -> str:
    return f"user {name}"


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _removed(system: System, name: str) -> bool | NotYet:
    done = system.run("userdel", name, check=False)
    if done.ok:
        return True
    # Its programs have stopped. What still runs as this user of ours was left by one that was killed (nginx its
    # worker), and would run on for ever, in a namespace without a name.
    # A container's user may have the same number: only this host's own processes are meant, not those of other PID
    # namespaces in it.
    system.run("pkill", "-KILL", "--euid", name, "--ns", str(os.getpid()), "--nslist", "pid", check=False)
    return NotYet(done.stderr.strip())


def _remover(name: str) -> Callable[[System], None]:
    def remove(system: System) -> None:
        until(
            lambda: _removed(system, name),
            deadline_s=system.timeouts.command,
            what=f"the removal of user {name}",
            where=system.host,
            hint="end what runs as that user, then try again",
        )

    return remove
