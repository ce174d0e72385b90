"""The contenders, and which of them this machine has."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

from underlay.process import run

#: Debian packages Mininet for the system's own Python.
MININET_PYTHON = "/usr/bin/python3"
_LIMIT_S = 30.0


class Tool(StrEnum):
    """A way to build the network. ``FLOOR`` builds less: it leaves out all that lies inside the namespaces."""

    OURS = "underlay"
    EXPLAIN = "explain"
    BATCH = "ip -batch"
    FLOOR = "floor"
    MININET = "mininet"


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and with what was measured; ``missing`` says of each tool that is left out why."""

    kernel: str
    cpus: int
    python: str
    versions: Mapping[str, str]
    missing: Mapping[Tool, str]


def machine() -> Machine:
    """Look at this machine."""
    versions = {
        "iproute2": run(["ip", "-V"], timeout=_LIMIT_S).stdout.strip().removeprefix("ip utility, "),
        "pyroute2": version("pyroute2"),
    }
    missing: dict[Tool, str] = {}
    found = _mininet()
    if found:
        versions["mininet"] = found
    else:
        missing[Tool.MININET] = (
            "Mininet and brctl are not both installed: apt-get install --no-install-recommends mininet bridge-utils"
        )
    return Machine(platform.release(), os.cpu_count() or 1, platform.python_version(), versions, missing)


def _mininet() -> str | None:
    if not Path(MININET_PYTHON).exists() or not shutil.which("brctl"):
        return None
    asked = run(
        [MININET_PYTHON, "-c", "from mininet.net import VERSION; print(VERSION)"], timeout=_LIMIT_S, check=False
    )
    return asked.stdout.strip() if asked.ok else None
