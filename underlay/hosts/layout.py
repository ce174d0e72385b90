"""The small files that make a host this host of this lab: pure text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import IPv4Address

#: What a command on a host finds in its environment, and nothing else.
PATH = "/opt/underlay/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Where a host keeps compiled Python: the repository is read-only there, and compiling it anew each time costs as much
#: as the work itself.
PYTHON_CACHE = "/var/cache/underlay/python"
#: Where every host sees the repository, read-only.
REPOSITORY = "/vagrant"
#: Where the supervisor of every host keeps its own log and those of its programs.
LOG_DIRECTORY = "/var/log/supervisor"
#: Where every host finds the lab's secret.
SECRET_FILE = "/etc/underlay/secret"  # noqa: S105 - a path
#: Where a host finds the shop's images, if it was given them: `registry/` and `manifest.json`.
SHOP_DIRECTORY = "/srv/underlay/shop"
#: Where every host finds the plan it was brought up with.
PLAN_FILE = "/etc/underlay/topology.yaml"


def environment(term: str = "dumb") -> dict[str, str]:
    """Return the environment of every command on a host; ``term`` is the type of terminal.

    Python finds what is ours in the repository, wherever the command stands, and nothing where it stands.
    """
    python = {"PYTHONPATH": REPOSITORY, "PYTHONSAFEPATH": "1", "PYTHONPYCACHEPREFIX": PYTHON_CACHE}
    return {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", **python, "TERM": term}


def hosts_file(host: str, domain: str, hosts: Iterable[tuple[str, IPv4Address]]) -> str:
    """Return /etc/hosts of ``host``: itself as localhost, and every host of the lab by short and full name."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{address} {name}.{domain} {name}" for name, address in hosts]
    return "\n".join([f"# {host}, written when it starts; the addresses come from the plan.", *lines, ""])


def resolver_file() -> str:
    """Return /etc/resolv.conf: a host asks nobody, so that no name of the lab leaks."""
    return "# No resolver: the names of the lab's hosts are in /etc/hosts. Written when the host starts.\n"


def identity_file(lab: str, host: str, kind: str = "namespace", patience: int = 1) -> str:
    """Return /etc/underlay/host.json, by which a program on a host knows where it is.

    ``patience`` is how many times longer than the plan says a command may take there.
    """
    identity = {"host": host, "lab": lab, "kind": kind}
    return json.dumps(identity if patience == 1 else {**identity, "patience": patience}) + "\n"
