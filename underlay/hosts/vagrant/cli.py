"""Vagrant itself, by python-vagrant: its output goes to the terminal, and it runs where the guests can be reached."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Sequence

from underlay import needs, packages
from underlay.errors import NotReady, Problem
from underlay.hosts.vagrant import environment as vmenv
from underlay.repository import REPOSITORY

# Imported, python-vagrant logs that vagrant is missing; whoever calls it says so better.
logging.getLogger("vagrant").setLevel(logging.ERROR)
import vagrant  # noqa: E402


class Client(vagrant.Vagrant):
    """python-vagrant's commands on this checkout's machines."""

    def _make_vagrant_command(self, args: Sequence[str | None]) -> list[str]:
        return [*vmenv.inside((require(),)), *(word for word in args if word is not None)]

    def ssh_configuration(self) -> str:
        """Return what an ssh-config must say to reach the machines; NotReady when Vagrant cannot tell."""
        try:
            return str(self.ssh_config())  # type: ignore[no-untyped-call]
        except subprocess.CalledProcessError as error:
            what = f"Vagrant does not say how to reach the machines: {error}"
            raise NotReady(Problem("vagrant", what, "see: ./lab vagrant status")) from error


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
