"""Quick answers for the Vagrantfile, as JSON: ``kvm``, ``phases``, ``images``, or the box for a provider.

Needs only Python.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from underlay.artifacts import cache_directory
from underlay.ending import ending
from underlay.hosts.layout import SHOP_DIRECTORY
from underlay.hosts.vagrant import kvm
from underlay.phases import PHASES
from underlay.signals import usual_signals


def main(arguments: Sequence[str]) -> int:
    """Print the answer to one question; return 0, or a problem's exit code after saying it."""
    usual_signals()
    (question,) = arguments
    try:
        answer = _answer(question)
    except (Exception, KeyboardInterrupt) as error:
        return ending(error)
    print(json.dumps(answer))
    return 0


def _answer(question: str) -> dict[str, str | bool] | dict[str, str] | tuple[str, ...]:
    match question:
        case "kvm":
            return _acceleration()
        case "phases":
            return PHASES
        case "images":
            return _images()
        case _:
            return box(question)


def _acceleration() -> dict[str, str | bool]:
    """Try with a kernel of our images, or else with one of this machine's own."""
    images = sorted((cache_directory() / "images").glob("*/rootfs/boot/vmlinuz-*"), reverse=True)
    kernels = (*images, *sorted(Path("/boot").glob("vmlinuz-*"), reverse=True))
    return asdict(kvm.answer(kernels, cache_directory() / "kvm.json"))


def _images() -> dict[str, str]:
    """Return where the shop's images of this checkout are, and where a host finds them; nothing while not built."""
    from underlay.shop import find_shop

    found = find_shop()
    return {} if found is None else {"directory": str(found.path), "place": SHOP_DIRECTORY}


def box(provider: str) -> dict[str, str]:
    """Return address and version of the box that this checkout describes, or nothing while it is not built."""
    from underlay.box.build import find_box
    from underlay.box.store import Provider

    found = find_box(Provider(provider))
    return {} if found is None else {"url": str(found.catalogue), "version": found.version}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
