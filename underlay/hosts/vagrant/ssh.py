"""One ssh-config for all machines of a lab, and the words that go over it: pure text.

OpenSSH shares a connection only if it is told where to keep its socket, and a socket's path may have 107 bytes
(unix(7)); so the socket has a short name in a short directory.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from underlay.hosts import layout

#: ssh's own exit code when the connection could not be made or broke (ssh(1)); a command's may be the same number.
BROKEN = 255
#: What a command's own 255 puts at the end of standard error, so that it is not taken for ssh's.
OWN_255 = "[underlay: 255 is the exit code of the command, not of ssh]\n"
#: Seconds that a connection is kept after its last command.
_PERSIST_S = 60
#: Seconds after which the remote side ends a command that its caller has given up.
_GRACE_S = 2
#: How the first line begins, in which the machines stand.
_FIRST = "# machines: "
_MARK = f"code=$?; [ $code -ne {BROKEN} ] || echo '{OWN_255.strip()}' >&2; exit $code"


def config(text: str, *, machines: Mapping[str, str], sockets: Path, connect_s: float) -> str:
    """Return an ssh-config that shares connections: Vagrant's ``text`` after options of our own for all hosts.

    ``machines`` maps a host's name to what tells this machine from an earlier one of the same name; it stands in the
    first line, so that :func:`describes` can tell whether a file is still true.
    """
    lines = [
        _first_line(machines),
        "# Written by underlay when the machines came up. The first value of an option counts (ssh_config(5)).",
        "Host *",
        # provision.host.base lets root in with Vagrant's key: sudo for each command would cost more than most commands.
        "  User root",
        "  ControlMaster auto",
        f"  ControlPath {sockets}/%n",
        f"  ControlPersist {_PERSIST_S}",
        f"  ConnectTimeout {max(1, math.ceil(connect_s))}",
        # A machine whose power was cut says nothing more; find out soon.
        "  ServerAliveInterval 5",
        "  ServerAliveCountMax 2",
        "  LogLevel ERROR",
        "",
    ]
    return "\n".join([*lines, text.strip(), ""])


def describes(text: str, machines: Mapping[str, str]) -> bool:
    """Whether an ssh-config was written for exactly these machines."""
    return text.partition("\n")[0] == _first_line(machines)


def machines(text: str) -> dict[str, str]:
    """Return the machines that an ssh-config was written for; none if the text is something else."""
    first = text.partition("\n")[0]
    words = first.removeprefix(_FIRST).split() if first.startswith(_FIRST) else []
    return dict(word.split("=", 1) for word in words if "=" in word)


def remote(
    command: Sequence[str], *, namespace: str | None = None, term: str = "dumb", timeout: float | None = None
) -> str:
    """Return the line that root's login shell is given to run ``command`` as on every other kind of host.

    With ``timeout`` (seconds) the command is killed there a little after its caller has given up, and its own exit
    code 255 is marked by OWN_255.
    """
    inside = tuple(command) if namespace is None else ("ip", "netns", "exec", namespace, *command)
    variables = (f"{name}={value}" for name, value in layout.environment(term).items())
    words = ("env", "-i", "-C", layout.REPOSITORY, *variables)
    if timeout is None:
        return shlex.join(("exec", *words, *inside))
    limit = ("timeout", "--signal=KILL", f"{math.ceil(timeout) + _GRACE_S}s")
    return f"{shlex.join((*words, *limit, *inside))}; {_MARK}"


def own_255(stderr: str) -> str | None:
    """Return the command's standard error if its exit code 255 was its own, or None if it was ssh's."""
    return stderr.removesuffix(OWN_255) if stderr.endswith(OWN_255) else None


def argv(file: Path, host: str, line: str, *, tty: bool = False) -> tuple[str, ...]:
    """Return the command that runs a line of shell on a host."""
    return ("ssh", "-F", str(file), "-tt" if tty else "-T", host, "--", line)


def _first_line(machines: Mapping[str, str]) -> str:
    return _FIRST + " ".join(f"{name}={mark}" for name, mark in sorted(machines.items()))
