"""Mininet as a contender: ``/usr/bin/python3 -m bench.with_mininet GATEWAY ADDRESS...``, one host for each address.

Runs with the system's own Python, for which Debian packages Mininet; so it imports nothing else of ours but
:mod:`bench.gone`. It prints a JSON line when the network is up, waits for a line, and prints another when it is gone.
"""

import json
import re
import resource
import sys
import time

from mininet.log import setLogLevel  # type: ignore[import-not-found]
from mininet.net import Mininet  # type: ignore[import-not-found]
from mininet.nodelib import LinuxBridge  # type: ignore[import-not-found]
from mininet.topo import Topo  # type: ignore[import-not-found]

from bench.gone import wait_until_gone

_LIMIT_S = 60.0


def main(gateway: str, addresses: list[str]) -> int:
    """Build, look, wait for the word, remove."""
    setLogLevel("error")
    # Mininet would raise limits of the whole machine (mininet.util.fixLimits). The one it needs is this process's own.
    Mininet.inited = True
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    topology = Topo()
    topology.addSwitch("s1")
    for number, address in enumerate(addresses):
        topology.addHost(f"h{number}", ip=address, defaultRoute=f"via {gateway}")
        topology.addLink(f"h{number}", "s1")
    started = time.perf_counter()
    net = Mininet(topo=topology, switch=LinuxBridge, controller=None)
    net.start()
    _say(seconds=time.perf_counter() - started)
    sys.stdin.readline()
    ends = [net.get(f"h{number}").pid for number in (0, len(addresses) - 1)]
    _say(differences=_differences(net, gateway, addresses), ends=ends)
    sys.stdin.readline()
    started = time.perf_counter()
    net.stop()
    wait_until_gone(_LIMIT_S)
    _say(seconds=time.perf_counter() - started)
    return 0


def _differences(net: Mininet, gateway: str, addresses: list[str]) -> list[str]:
    """Look at the last host: its address and its route."""
    last = net.get(f"h{len(addresses) - 1}")
    wanted = {
        "ip -4 -o address": re.escape(addresses[-1]),
        "ip route": f"default via {re.escape(gateway)} ",
    }
    said = {command: last.cmd(command) for command in wanted}
    return [
        f"{command}: {said[command]}" for command, pattern in wanted.items() if not re.search(pattern, said[command])
    ]


def _say(**words: object) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
