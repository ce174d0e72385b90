"""Runs on a host, given to its Python as text: starts a program again and prints how long until it answers.

``NAME ADDRESS PORT``: a program of supervisord, and where it listens, seen from this process's network namespace.
Prints JSON: the seconds from the start of the process to its first answer, and its resident memory in bytes then.
Standard library only: the host may hold another version of Underlay than the one that asks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

_LIMIT_S = 60.0
_PAUSE_S = 0.002
#: By its name: without, supervisorctl would first look into the directory that this runs in.
_CONTROL = ("supervisorctl", "-c", "/etc/supervisor/supervisord.conf")


def main(name: str, address: str, port: int) -> int:
    """Do it; exit 1, with a line that says why, if the program cannot be stopped or does not answer in time."""
    # Whoever asked may be gone; a program that was stopped is started again all the same.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    stopped = subprocess.run([*_CONTROL, "stop", name], check=False, capture_output=True, text=True)
    if stopped.returncode:
        print(f"{name} cannot be stopped: {(stopped.stdout + stopped.stderr).strip()}", file=sys.stderr)
        return 1
    with subprocess.Popen([*_CONTROL, "start", name], stdout=subprocess.DEVNULL):  # it stays until it counts as started
        deadline = time.monotonic() + _LIMIT_S
        while not _answers(address, port):
            if time.monotonic() > deadline:
                print(f"{name} does not answer on {address}:{port} after {_LIMIT_S:g} s", file=sys.stderr)
                return 1
            time.sleep(_PAUSE_S)
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
    pid = int(subprocess.run([*_CONTROL, "pid", name], check=True, capture_output=True).stdout)
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
