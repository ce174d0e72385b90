"""Passwords, derived from one random secret of the lab, so that both hosts know them without sending them around."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path


def lab_secret(path: Path) -> bytes:
    """Return the lab's secret, made with mode 0600 if it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        draft.replace(path)
    return path.read_bytes().strip()


def password(path: Path, role: str) -> str:
    """Return the password of a role: HMAC-SHA256 (RFC 2104) of its name under the lab's secret at ``path``."""
    return hmac.new(lab_secret(path), role.encode(), hashlib.sha256).hexdigest()
