"""A phase's name server: dnsmasq(8) for its own networks, which knows what it is told and asks nobody. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from provision.marks import Mark
from provision.resources.file import TextFile
from provision.resources.program import Program

_PORT = 53


def server(name: str, settings: TextFile, on: tuple[str, ...], more: tuple[TextFile, ...] = ()) -> Program:
    """Return the server as a program: ``settings`` are its own, ``more`` what it reads besides."""
    # It binds its port as root, and then becomes the user named in its settings.
    argv = ("dnsmasq", f"--conf-file={settings.path}")
    return Program(name, None, "root", argv, inputs=(settings, *more), on=on)


def settings(mark: Mark, addresses: Iterable[IPv4Address], *more: str) -> str:
    """Return the settings of one that listens at these addresses."""
    return "\n".join(
        (
            f"# {mark.text}",
            "keep-in-foreground",
            "log-facility=-",
            "pid-file",
            "user=dnsmasq",
            # Sockets that are bound once outlive a bridge that is made again. bind-dynamic would bind anew at each
            # change, and may meet an address that has just gone: one of its protocols then stays unbound.
            "bind-interfaces",
            *(f"listen-address={address}" for address in addresses),
            # No upstream, not the host's own /etc/hosts, and "no such name" for all that it is not told.
            "no-resolv",
            "no-hosts",
            "local=/#/",
            *more,
            "",
        )
    )


def reachable(address: IPv4Address, bridge: str) -> tuple[str, ...]:
    """Return the guard's words for asking it, from a bridge (provision/guard.py)."""
    return tuple(
        f"-d {address}/32 -i {bridge} -p {protocol} -m {protocol} --dport {_PORT}" for protocol in ("udp", "tcp")
    )
