"""Passwords, derived from one random secret of the lab, so that both hosts know them without sending them around."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from underlay.errors import NotReady, Problem
from underlay.phases import PHASES

#: Of a password's file: its owner reads it. Nobody writes it but root, who asks no mode.
PASSWORD_MODE = 0o400


def lab_secret(path: Path) -> bytes:
    """Return the lab's secret. NotReady if it is not there: one that a host made by itself would be its alone."""
    try:
        return path.read_bytes().strip()
    except FileNotFoundError:
        what = "the lab's secret, from which all passwords are derived, is not there"
        hint = f"have the workstation give it to this host again: ./lab converge {PHASES[0]}"
        raise NotReady(Problem(str(path), what, hint)) from None


def password(path: Path, role: str) -> str:
    """Return the password of a role: HMAC-SHA256 (RFC 2104) of its name under the lab's secret at ``path``."""
    return derived(path, role).hex()


def derived(path: Path, purpose: str) -> bytes:
    """Return 32 bytes that are for one purpose alone, the same on every host of the lab."""
    return hmac.new(lab_secret(path), purpose.encode(), hashlib.sha256).digest()
