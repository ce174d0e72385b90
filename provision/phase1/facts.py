"""What must be asked of a host before phase 1 can be worked out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from provision.kernel.network import Network
from provision.wire import no_underlay, underlay_link
from underlay.errors import NotReady, Problem
from underlay.topology import Plan, Program


@dataclass(frozen=True, slots=True)
class Facts:
    """``underlay_link`` carries the host's underlay address; ``postgres`` is the directory of the server's programs."""

    underlay_link: str
    postgres: Path


def gather(plan: Plan, host: str, network: Network) -> Facts:
    """Ask this host. Raises NotReady, naming all that is missing."""
    link = underlay_link(plan, host, network)
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    needs_postgres = any(service.program is Program.POSTGRES for service in plan.services_on(host))
    problems: list[Problem] = []
    if link is None:
        problems.append(no_underlay(plan, host))
    if needs_postgres and not programs:
        problems.append(Problem(host, "PostgreSQL is not installed", "rebuild the image: ./lab image build"))
    if problems or link is None:
        raise NotReady(*problems)
    return Facts(link, programs[-1].parent if programs else Path())
