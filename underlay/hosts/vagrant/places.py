"""Where the libvirt that we start has what the machine empties when it boots: beside the pins of namespace hosts."""

from __future__ import annotations

from pathlib import Path

from underlay.hosts.namespace import state


def run_directory() -> Path:
    """Return the directory of sockets, pid files, the network namespace's pin and the record."""
    labs = state.run_directory()
    return labs.with_name(f"{labs.name}-vm")


def pin() -> Path:
    """Return the file on which the network namespace is mounted."""
    return run_directory() / "net"


def record_file() -> Path:
    """Return the file that says what was made."""
    return run_directory() / "record.json"


def lock_file() -> Path:
    """Return the file that is locked by who starts or stops it."""
    return run_directory() / "lock"


def own_uri() -> str:
    """Return how libvirt's clients reach it."""
    return f"qemu+unix:///system?socket={run_directory() / 'libvirt/libvirt-sock'}"
