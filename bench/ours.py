"""Underlay's own provisioning as a contender: ``python3 -m bench.ours up|check|down SIZE`` in a place of its own.

Prints one JSON object: the seconds from the list in memory to the kernel's last acknowledgement (``up``) or to nothing
being left (``down``). Starting Python and importing come on top; whoever started this process sees them.
"""

from __future__ import annotations

import json
import sys
import time

from bench.gone import wait_until_gone
from bench.network import KINDS, MARK, phase
from provision import engine
from provision.kernel.network import Network
from provision.supervisor import Supervisor
from provision.system import System
from underlay.topology import Timeouts

_WHERE = "bench"
_LIMIT_S = 60.0


def main(verb: str, size: int) -> int:
    """Do it; exit 1 if ``check`` finds a difference."""
    planned = phase(size)
    network = Network(_WHERE)
    timeouts = Timeouts(connect=_LIMIT_S, command=_LIMIT_S, ready=_LIMIT_S, cache=_LIMIT_S)
    system = System(_WHERE, MARK, timeouts, network, Supervisor(_WHERE, _LIMIT_S))
    started = time.perf_counter()
    match verb:
        case "up":
            found, _ = engine.converge_once(planned, system, _silent, KINDS)
        case "down":
            found = engine.remove(planned, system, _silent, KINDS)
            wait_until_gone(_LIMIT_S)
        case _:
            found = engine.check(planned, system, KINDS)
    seconds = time.perf_counter() - started
    network.close()
    print(json.dumps({"seconds": seconds, "differences": [str(item) for item in found] if verb == "check" else []}))
    return 1 if verb == "check" and found else 0


def _silent(_: engine.Difference) -> None:
    """Print nothing: a terminal is not what is measured."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
