"""What an image must be: who it runs as, what it says of itself, how large it is, and what is not in it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from underlay.errors import Problem
from underlay.image.recipe import SOURCE_DATE_EPOCH
from underlay.shop.parts import Image
from underlay.shop.registry import Configuration, Entry, LayerFiles

#: What must not be in any layer, and what it is.
_UNWANTED = {
    "a compiler": r"(.*/)?bin/(.*-)?(as|cc|c\+\+|c99|clang|cpp|g\+\+|gcc|ld|make|tcc|rustc)(-[0-9.]+)?",
    "a package manager": r"(.*/)?bin/(apt.*|dpkg.*|pip[0-9.]*)|(.*/)?(pip|ensurepip)/__init__\.py",
    "a cache": r"var/cache/.+|var/lib/(apt|dpkg)/.+|(.*/)?\.cache/.+|.*\.(whl|deb)|build/.*",
    "a secret": r"etc/g?shadow-?|(.*/)?(id_(rsa|ecdsa|ed25519)|\.netrc|\.pgpass|\.env)|.*\.key|(.*/)?\.git/.*",
    "a file of the machine that built": r"vagrant/.*|wheels/.*|workshop/.*",
}
_PATTERNS = tuple((what, re.compile(pattern)) for what, pattern in _UNWANTED.items())
_SECRET_NAME = re.compile(r"(PASSWORD|SECRET|TOKEN|KEY)(?!_FILE)")
_LABELS = tuple(f"org.opencontainers.image.{name}" for name in ("title", "description", "version", "licenses"))
_SPECIAL, _EVERYBODY_WRITES, _STICKY = 0o6000, 0o002, 0o1000
#: Files that a message names; more of them say nothing more.
_NAMED = 5


def problems(image: Image, configuration: Configuration, layers: Sequence[LayerFiles]) -> list[Problem]:
    """Return everything that is wrong with an image."""
    where = f"image shop, {image.name}"
    hint = f"look at {image.dockerfile} and underlay/shop/parts.py"
    found = [*_said(image, configuration), *_sizes(image, layers)]
    for what, entries in _unwanted(entry for layer in layers for entry in layer.entries).items():
        more = f" and {len(entries) - _NAMED} more" if len(entries) > _NAMED else ""
        found.append(f"{what} is in it: {', '.join(entries[:_NAMED])}{more}")
    return [Problem(where, what, hint) for what in found]


def _said(image: Image, configuration: Configuration) -> Iterator[str]:
    """Yield what is wrong with what it says of itself."""
    expected = f"{image.user}:{image.user}"
    if configuration.user != expected:
        yield f"it runs as {configuration.user or 'root'}, expected {expected}"
    if not configuration.healthcheck or configuration.healthcheck[0] == "NONE":
        yield "it has no health check"
    missing = [name for name in _LABELS if not configuration.labels.get(name)]
    if missing:
        yield f"it lacks the labels {', '.join(missing)}"
    told = [word.partition("=")[0] for word in configuration.environment]
    secret = [name for name in told if _SECRET_NAME.search(name)]
    if secret:
        yield f"its environment holds a secret: {', '.join(secret)}"
    created = datetime.fromtimestamp(SOURCE_DATE_EPOCH, tz=UTC)
    if not configuration.created.startswith(f"{created:%Y-%m-%dT%H:%M:%S}"):
        yield f"it is dated {configuration.created}, expected {created:%Y-%m-%dT%H:%M:%SZ}, whenever it is built"


def _sizes(image: Image, layers: Sequence[LayerFiles]) -> Iterator[str]:
    size = sum(layer.size_bytes for layer in layers)
    if size > image.limit:
        yield f"it has {size / 1e6:.1f} MB, at most {image.limit / 1e6:.0f} are allowed"


def _unwanted(entries: Iterator[Entry]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in entries:
        for what in _faults(entry):
            found.setdefault(what, []).append(entry.path)
    return found


def _faults(entry: Entry) -> Iterator[str]:
    for what, pattern in _PATTERNS:
        if not entry.directory and pattern.fullmatch(entry.path):
            yield what
    if entry.key:
        yield "a private key"
    if entry.link:
        return
    if not entry.directory and entry.mode & _SPECIAL:
        yield "a program with its owner's rights"
    if entry.mode & _EVERYBODY_WRITES and not (entry.directory and entry.mode & _STICKY):
        yield "a place where everybody writes"
