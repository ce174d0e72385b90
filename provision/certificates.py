"""The lab's own certificate authority, and what it signs: derived from the lab's secret, like passwords.

So every host has the same authority without being sent one. Keys and signatures are of Ed25519 (RFC 8032, RFC 8410),
which has no chance in it: the same secret gives the same certificates, and one that differs is a difference.
"""

from __future__ import annotations

import base64
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from provision import secrets
from underlay.process import run

#: What stands before the 32 bytes of a private key of Ed25519 (RFC 8410, section 7; PKCS #8, RFC 5958).
_PKCS8 = bytes.fromhex("302e020100300506032b657004220420")
#: A lab is younger and dies earlier.
_BEGINS, _ENDS = "20200101000000Z", "20991231235959Z"
#: Whose key signs; a host's is said to be a host's, whatever it is called.
_CA, _AUTHORITY = "the authority", "/O=Underlay/CN=authority of the lab"


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

    def text(self, secret: Path, limit: float) -> str:
        """Return it as PEM (RFC 7468); ``secret`` is the file of the lab's secret, ``limit`` openssl's in seconds."""
        match self.kind:
            case Kind.KEY:
                return _key(secret, f"host {self.name}")
            case Kind.AUTHORITY:
                return _authority(secret, limit)
            case Kind.CERTIFICATE:
                return self._certificate(secret, limit)

    def _certificate(self, secret: Path, limit: float) -> str:
        names = ",".join([f"DNS:{self.name}", *(f"IP:{address}" for address in self.addresses)])
        # openssl takes one key from its input; the other, and what is signed with, it finds in memory of ours.
        own, authority = _key(secret, f"host {self.name}"), _authority(secret, limit)
        with _in_memory(own) as key, _in_memory(authority) as signer:
            return _openssl(
                _key(secret, _CA),
                limit,
                *("-key", key, "-CA", signer, "-CAkey", "/dev/stdin"),
                *("-subj", f"/O=Underlay/CN={self.name}", "-addext", f"subjectAltName={names}"),
                *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"),
                *("-set_serial", "2"),
            )


def _authority(secret: Path, limit: float) -> str:
    return _openssl(
        _key(secret, _CA),
        limit,
        *("-key", "/dev/stdin", "-subj", _AUTHORITY, "-set_serial", "1"),
        *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"),
    )


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """Lend the path of a text that is on no disk: however this process ends, nothing stays of it (memfd_create(2))."""
    with os.fdopen(os.memfd_create("underlay"), "w") as file:
        file.write(text)
        file.flush()
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"


def _openssl(key: str, limit: float, *words: str) -> str:
    """Make a certificate; ``key`` is its standard input."""
    argv = ("openssl", "req", "-x509", "-not_before", _BEGINS, "-not_after", _ENDS, *words)
    return run(argv, timeout=limit, stdin=key, where="certificates").stdout


def _key(secret: Path, whose: str) -> str:
    text = base64.b64encode(_PKCS8 + secrets.derived(secret, f"key of {whose}")).decode()
    return "\n".join(["-----BEGIN PRIVATE KEY-----", *textwrap.wrap(text, 64), "-----END PRIVATE KEY-----", ""])
