"""Runs on a host, given to its Python as text: starts a program again and prints how long until it answers.

``NAME ADDRESS PORT``: a program of supervisord, and where it listens, seen from this process's network namespace.
Prints JSON: the seconds from the start of the process to its first answer, and its resident memory in bytes then.
Standard library only: the host may hold another version of Underlay than the one that asks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

_LIMIT_S = 60.0


def main(name: str, address: str, port: int) -> int:
    """Do it; exit 1 if nothing listens in time."""
    subprocess.run(["supervisorctl", "stop", name], check=True, stdout=subprocess.DEVNULL)
    starter = subprocess.Popen(["supervisorctl", "start", name], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + _LIMIT_S
    try:
        while not _answers(address, port):
            if time.monotonic() > deadline:
                print(f"{name} does not answer on {address}:{port} after {_LIMIT_S:g} s", file=sys.stderr)
                return 1
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
    finally:
        starter.wait()  # it stays until the supervisor calls the program started
    pid = int(subprocess.run(["supervisorctl", "pid", name], check=True, capture_output=True).stdout)
    # proc_pid_stat(5): the 22nd field is the start in clock ticks since boot.
    ticks = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    print(json.dumps({"start": round(now - ticks / os.sysconf("SC_CLK_TCK"), 3), "memory": _memory(pid)}))
    return 0


def _answers(address: str, port: int) -> bool:
    """Ask for a path that there is not: the answer needs nothing else. A listening socket alone is no service yet."""
    connection = HTTPConnection(address, port, timeout=_LIMIT_S)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def _memory(pid: int) -> int:
    """Return the resident memory of a process and its children, in bytes."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    total = 0
    for member in (pid, *map(int, children)):
        lines = Path(f"/proc/{member}/status").read_text(encoding="utf-8").splitlines()
        (resident,) = (line.split()[1] for line in lines if line.startswith("VmRSS:"))
        total += int(resident) * 1024
    return total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
