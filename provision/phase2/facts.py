"""What must be asked of a host before phase 2 can be worked out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from provision.kernel.network import Network
from provision.marks import Places
from underlay.errors import NotReady, Problem
from underlay.topology import Plan, in_containers

#: Those that phase 2 has run, each of a package of its own.
_PROGRAMS = ("dockerd", "docker", "docker-registry", "dnsmasq", "openssl", "curl")


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the shop: its repository, the digest it is pulled by, and the number of the user it runs as."""

    repository: str
    digest: str
    user: int


@dataclass(frozen=True, slots=True)
class Facts:
    """``images`` are those that the workstation has given to this host, by name."""

    images: Mapping[str, Image]


def gather(plan: Plan, host: str, network: Network) -> Facts:
    """Ask this host. Raises NotReady, naming all that is missing, if containers shall be there and cannot."""
    if in_containers(plan).host != host:
        return Facts({})
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        what = f"{', '.join(missing)}: not installed"
        raise NotReady(Problem(host, what, "rebuild the image: ./lab image build"))
    try:
        said = json.loads((Places().shop / "manifest.json").read_text())
        images = {
            str(item["name"]): Image(
                str(item["repository"]), str(item["digest"]), int(str(item["user"]).partition(":")[0])
            )
            for item in said["images"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"the shop's images are not on this host: {error}"
        raise NotReady(Problem(host, what, "have them built, and given to the host: ./lab up")) from None
    return Facts(images)
