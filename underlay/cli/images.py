"""The shop's images on the way to a host: built if need be, and given to the one that runs containers."""

from __future__ import annotations

from collections.abc import Mapping

from underlay.hosts.base import Host
from underlay.hosts.provisioning import give_images
from underlay.phases import WITH_IMAGES
from underlay.progress import Progress
from underlay.topology import Plan, in_containers

#: Times the plan's `ready` in which an emulated machine has taken in a hundred megabytes.
_WAITS = 10


def provide(plan: Plan, hosts: Mapping[str, Host], phase: str, progress: Progress) -> None:
    """Have the images that a phase needs on the host that needs them. Raises NotReady if they cannot be built."""
    wanted = in_containers(plan).host
    host = hosts.get(wanted) if wanted else None
    if phase not in WITH_IMAGES or host is None or not host.running():
        return
    from underlay.shop import build_shop

    shop = build_shop(progress=progress)
    give_images(host, shop.path, progress, timeout=plan.timeouts.ready * _WAITS)
