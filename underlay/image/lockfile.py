"""The exact package versions of an image, as a text that two builds can be compared by."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from underlay.errors import NotReady, Problem

#: Stands before the names of Python packages, which share names with Debian's.
_PYTHON = "python:"
#: What stands in the third column for a Python package.
_ANY = "any"


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One installed package."""

    name: str
    version: str
    arch: str

    def line(self) -> str:
        """Return it as one line of the lock file."""
        return f"{self.name} {self.version} {self.arch}"


@dataclass(frozen=True, slots=True)
class VersionChange:
    """A package that two builds do not have in the same version; None where it is missing."""

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        return f"{self.name}: {self.before or 'not installed'} -> {self.after or 'not installed'}"


def debian_packages(status: str) -> tuple[Package, ...]:
    """Return the installed packages of a dpkg status file (deb822 paragraphs, see dpkg(1)), sorted."""
    found: list[Package] = []
    for paragraph in status.split("\n\n"):
        lines = (line.partition(": ") for line in paragraph.splitlines() if not line.startswith(" "))
        fields = {name: value for name, _, value in lines}
        if fields.get("Status", "").endswith(" installed"):
            found.append(Package(fields["Package"], fields["Version"], fields["Architecture"]))
    return tuple(sorted(found))


def python_packages(site_packages: Path) -> tuple[Package, ...]:
    """Return the Python packages installed in a directory, sorted."""
    found = importlib.metadata.distributions(path=[str(site_packages)])
    return tuple(sorted(Package(f"{_PYTHON}{item.name.lower()}", item.version, _ANY) for item in found))


def lock_text(packages: tuple[Package, ...]) -> str:
    """Return the lock file's text, a line a package, sorted."""
    return "".join(f"{package.line()}\n" for package in sorted(packages))


def parse_lock(text: str, where: str = "packages.lock") -> tuple[Package, ...]:
    """Return the packages of a lock file. Raises NotReady when it is damaged."""
    packages: list[Package] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split(" ")
        if len(words) != 3:
            raise NotReady(
                Problem(
                    f"{where}:{number}", f"expected `name version arch`, found {line[:80]!r}", "build the image again"
                )
            )
        packages.append(Package(*words))
    return tuple(packages)


def compare_locks(before: str, after: str) -> tuple[VersionChange, ...]:
    """Return the packages that differ between two lock files, by name."""
    old = {(item.name, item.arch): item.version for item in parse_lock(before)}
    new = {(item.name, item.arch): item.version for item in parse_lock(after)}
    return tuple(
        VersionChange(name, old.get((name, arch)), new.get((name, arch)))
        for name, arch in sorted(old.keys() | new.keys())
        if old.get((name, arch)) != new.get((name, arch))
    )
