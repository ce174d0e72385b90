"""The lab's own certificate authority, and what it signs: derived from the lab's secret, like passwords.

So every host has the same authority without being sent one. Keys and signatures are of Ed25519 (RFC 8032, RFC 8410),
which has no chance in it: the same secret gives the same certificates, and one that differs is a difference.
"""

from __future__ import annotations

import base64
import tempfile
import textwrap
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from provision import secrets
from underlay.process import run

#: What stands before the 32 bytes of a private key of Ed25519 (RFC 8410, section 7; PKCS #8, RFC 5958).
_PKCS8 = bytes.fromhex("302e020100300506032b657004220420")
#: A lab is younger and dies earlier.
_BEGINS, _ENDS = "20200101000000Z", "20991231235959Z"
#: Seconds for openssl(1), which takes some milliseconds.
_LIMIT_S = 10.0
_AUTHORITY = "/O=Underlay/CN=authority of the lab"


class Kind(StrEnum):
    """What can be had: the authority's certificate, a host's certificate, and the key of that."""

    AUTHORITY = "authority"
    CERTIFICATE = "certificate"
    KEY = "key"

    @property
    def mode(self) -> int:
        """The mode of its file."""
        return secrets.PASSWORD_MODE if self is Kind.KEY else 0o644


@dataclass(frozen=True, slots=True)
class Paper:
    """A certificate or key for the server ``name`` of the lab, which is also reached at ``addresses``."""

    kind: Kind
    name: str
    addresses: tuple[str, ...] = ()

    def text(self, secret: Path) -> str:
        """Return it as PEM (RFC 7468); ``secret`` is the file of the lab's secret."""
        match self.kind:
            case Kind.KEY:
                return _key(secret, self.name)
            case Kind.AUTHORITY:
                return _authority(secret)
            case Kind.CERTIFICATE:
                return self._certificate(secret)

    def _certificate(self, secret: Path) -> str:
        names = ",".join([f"DNS:{self.name}", *(f"IP:{address}" for address in self.addresses)])
        # openssl takes one key from its input; the other, and what is signed with, from files.
        with tempfile.TemporaryDirectory(prefix="underlay-", dir="/run") as directory:
            key, authority = Path(directory, "key"), Path(directory, "authority")
            key.write_text(_key(secret, self.name))
            authority.write_text(_authority(secret))
            return _openssl(
                _key(secret, Kind.AUTHORITY),
                *("-key", str(key), "-CA", str(authority), "-CAkey", "/dev/stdin"),
                *("-subj", f"/O=Underlay/CN={self.name}", "-addext", f"subjectAltName={names}"),
                *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"),
                *("-set_serial", "2"),
            )


def _authority(secret: Path) -> str:
    return _openssl(
        _key(secret, Kind.AUTHORITY),
        *("-key", "/dev/stdin", "-subj", _AUTHORITY, "-set_serial", "1"),
        *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"),
    )


def _openssl(key: str, *words: str) -> str:
    """Make a certificate; ``key`` is its standard input."""
    argv = ("openssl", "req", "-x509", "-not_before", _BEGINS, "-not_after", _ENDS, *words)
    return run(argv, timeout=_LIMIT_S, stdin=key, where="certificates").stdout


def _key(secret: Path, name: str) -> str:
    text = base64.b64encode(_PKCS8 + secrets.derived(secret, f"key of {name}")).decode()
    return "\n".join(["-----BEGIN PRIVATE KEY-----", *textwrap.wrap(text, 64), "-----END PRIVATE KEY-----", ""])
