"""What must be asked of a host before phase 3 can be worked out."""

from __future__ import annotations

from dataclasses import dataclass

from provision.kernel.network import Network
from provision.wire import no_underlay, underlay_link
from underlay.errors import NotReady
from underlay.topology import Plan


@dataclass(frozen=True, slots=True)
class Facts:
    """``underlay_link`` carries the host's underlay address."""

    underlay_link: str


def gather(plan: Plan, host: str, network: Network) -> Facts:
    """Ask this host. Raises NotReady, naming what is missing."""
    link = underlay_link(plan, host, network)
    if link is None:
        raise NotReady(no_underlay(plan, host))
    return Facts(link)
