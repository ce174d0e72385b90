"""Vagrant itself, by python-vagrant: its output goes to the terminal, and it runs where the guests can be reached."""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext

from underlay import needs, packages
from underlay.errors import NotReady, Problem
from underlay.hosts.vagrant import environment as vmenv
from underlay.repository import REPOSITORY
from underlay.wait import NotYet, until

# Imported, python-vagrant logs that vagrant is missing; whoever calls it says so better.
logging.getLogger("vagrant").setLevel(logging.ERROR)
import vagrant  # noqa: E402

#: What Vagrant says while another one of its processes holds a machine (its locales/en.yml: machine_locked,
#: machine_action_locked).
_HELD = ("because it is locked", "another process is already executing an action")


class Client(vagrant.Vagrant):
    """python-vagrant's commands on this checkout's machines."""

    def _make_vagrant_command(self, args: Sequence[str | None]) -> list[str]:
        return [*vmenv.inside((require(),)), *(word for word in args if word is not None)]

    def ssh_configuration(self, patience_s: float) -> str:
        """Return what an ssh-config must say to reach the machines; NotReady when Vagrant cannot tell.

        For ``patience_s`` seconds it waits for another Vagrant that holds a machine.
        """
        return until(
            self._ssh_configuration,
            deadline_s=patience_s,
            what="an answer of Vagrant on how to reach the machines",
            where="vagrant",
            hint="wait until the other vagrant command has ended",
            slowest=1.0,
        )

    def _ssh_configuration(self) -> str | NotYet:
        with tempfile.TemporaryFile("w+", errors="replace") as file:
            before, self.err_cm = self.err_cm, lambda: nullcontext(file)
            try:
                return str(self.ssh_config())  # type: ignore[no-untyped-call]
            except subprocess.CalledProcessError as error:
                file.seek(0)
                said = " ".join(file.read().split()) or str(error)
            finally:
                self.err_cm = before
        if any(words in said for words in _HELD):
            return NotYet(said)
        what = f"Vagrant does not say how to reach the machines: {said}"
        raise NotReady(Problem("vagrant", what, "see: ./lab vagrant status"))


def client() -> Client:
    """Return Vagrant for this checkout; NotReady when it is not installed."""
    require()
    return Client(  # type: ignore[no-untyped-call]
        str(REPOSITORY),
        env=vmenv.environment(),
        out_cm=vagrant.none_cm,
        err_cm=vagrant.none_cm,
    )


def argv(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the command that runs vagrant with these words where the guests can be reached."""
    return vmenv.inside((require(), *arguments))


def require() -> str:
    """Return the path of vagrant; NotReady when it is not installed."""
    program = shutil.which("vagrant")
    if not program:
        raise NotReady(*packages.problems(packages.missing(needs.VAGRANT)))
    return program
