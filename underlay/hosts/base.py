"""What a host is, however it was booted. The rest of Underlay and the acceptance suite see only this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

from underlay.errors import Problem
from underlay.process import Completed
from underlay.topology import Plan, Timeouts


class Machine(Protocol):
    """Somewhere commands run: a host of the lab, or the machine that looks at the lab from outside."""

    @property
    def name(self) -> str:
        """The name used in messages (``host1``)."""
        ...

    @property
    def address(self) -> IPv4Address:
        """The address on the underlay."""
        ...

    @property
    def timeouts(self) -> Timeouts:
        """The plan's, with the patience that this kind of machine needs."""
        ...

    def argv(self, command: Sequence[str], *, namespace: str | None = None, tty: bool = False) -> tuple[str, ...]:
        """Return the argument list that runs ``command`` there as root, started from the workstation.

        ``namespace`` names a network namespace of that machine (as ``ip netns exec`` does); ``tty`` asks for a
        terminal. Streams and exit code pass through.
        """
        ...

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float | None = None,
        check: bool = True,
        stdin: str | None = None,
        namespace: str | None = None,
    ) -> Completed:
        """Run ``command`` there to its end; ``timeout`` in seconds (default: the plan's ``command``).

        Raises as :func:`underlay.process.run` does, and NotReady when the host is not running.
        """
        ...


class Host(Machine, Protocol):
    """A host of the lab."""

    def running(self) -> bool:
        """Whether the host is up."""
        ...

    def power_off(self) -> None:
        """Cut the power: everything on the host stops at once, its disk stays. No error if it is off."""
        ...

    def power_on(self) -> None:
        """Boot the host again from its disk and wait until commands run. No error if it is on."""
        ...

    def facts(self) -> Mapping[str, str]:
        """Return what the host itself says of itself: kernel, docker, booted (UTC, ISO 8601), kind."""
        ...


class Outside(Machine, Protocol):
    """The machine that looks at the lab from outside: the one that asks, where it meets the underlay."""

    @property
    def network(self) -> Path | None:
        """The file that its network namespace is mounted on; None if that is the caller's own.

        NotReady when the lab is down.
        """
        ...


class Lab(Protocol):
    """A lab that is up: its plan, its hosts, and a place outside of them."""

    @property
    def kind(self) -> str:
        """The kind of its hosts, as `--hosts` names it."""
        ...

    @property
    def plan(self) -> Plan:
        """The plan on record, with the patience that these hosts need."""
        ...

    @property
    def recorded(self) -> Plan:
        """The plan on record: the one that the lab was brought up with, or took since."""
        ...

    def obstacle(self, plan: Plan) -> Problem | None:
        """Say why the lab cannot take another plan as it is (hosts have to start anew for it); None if it can."""
        ...

    def take(self, plan: Plan) -> Lab:
        """Put another plan on record, tell every host that is on, and return the lab with it; nothing else changes.

        NotReady with the obstacle, before anything is touched, if there is one.
        """
        ...

    @property
    def hosts(self) -> Mapping[str, Host]:
        """The hosts by name, in the plan's order."""
        ...

    @property
    def outside(self) -> Outside:
        """The machine that the tests run on, at the underlay's gateway address."""
        ...
