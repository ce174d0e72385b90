"""Passwords, derived from one random secret of the lab, so that both hosts know them without sending them around."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from underlay import durable

#: Of a password's file: its owner reads it. Nobody writes it but root, who asks no mode.
PASSWORD_MODE = 0o400


def lab_secret(path: Path) -> bytes:
    """Return the lab's secret, made with mode 0600 if it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(path, secrets.token_hex(32), mode=0o600)
    return path.read_bytes().strip()


def password(path: Path, role: str) -> str:
    """Return the password of a role: HMAC-SHA256 (RFC 2104) of its name under the lab's secret at ``path``."""
    return hmac.new(lab_secret(path), role.encode(), hashlib.sha256).hexdigest()
