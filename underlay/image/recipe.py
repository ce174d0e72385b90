"""What an image is made from, and the key that names it. Reads the repository's files, starts nothing."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from underlay.errors import InputError, Problem

#: Release of Debian in the image.
SUITE = "trixie"
#: Version of Python in that release: wheels are chosen for it, the builder's own Python may be another.
PYTHON_VERSION = "3.13"
#: Seconds since 1970. Whatever a build would date with "now" gets this time instead
#: (https://reproducible-builds.org/specs/source-date-epoch/). 2025-10-09 08:53:20 UTC.
SOURCE_DATE_EPOCH = 1_760_000_000

_HERE = Path("underlay/image")
#: Files of the repository, relative to it.
PACKAGES = _HERE / "packages.txt"
REQUIREMENTS = Path("requirements/image.txt")
#: Copied into the tree before the packages are installed, so that their installers see it.
FILES_BEFORE = _HERE / "files/before"
#: Copied into the tree after that, over what the packages brought.
FILES_AFTER = _HERE / "files/after"
#: The code that decides what the tree holds. It counts as an input: a comment edited there costs one build, a version
#: number forgotten there would leave a wrong image in use.
_CODE = (_HERE / "recipe.py", _HERE / "customise.py", _HERE / "pythonenv.py")

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
#: What pip calls the same machine.
_WHEEL_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
#: glibc versions that wheels name, newest first; the image's own is newer than all of them.
_WHEEL_PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")

#: Only while building: a build that a power cut interrupts is thrown away anyway. customise.py takes it out again.
#: (path-exclude stands in a file of ours instead: as an option, mmdebstrap would start a Python for every package.)
UNSAFE_IO = "force-unsafe-io"

_PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")  # Debian Policy 5.6.1
_KEY_LENGTH = 16


def architecture() -> str:
    """Return the Debian architecture of this machine. Raises InputError for one that the image is not made for."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise InputError(
            Problem("image", f"this machine is a {machine}; images are made for {known}", "use one of those")
        )
    return _ARCHITECTURES[machine]


def parse_packages(text: str, arch: str, where: str = str(PACKAGES)) -> tuple[str, ...]:
    """Return the package names of a list (one a line, ``#`` starts a comment), sorted, for one architecture.

    Raises InputError with every line that is no package name, or that names one a second time.
    """
    problems: list[Problem] = []
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name = line.partition("#")[0].strip().replace("@ARCH@", arch)
        if not name:
            continue
        if not _PACKAGE_NAME.fullmatch(name):
            problems.append(Problem(f"{where}:{number}", f"{name!r} is not a package name", "write one name a line"))
        elif name in found:
            problems.append(
                Problem(f"{where}:{number}", f"{name} is already named in line {found[name]}", "remove one")
            )
        else:
            found[name] = number
    if not found and not problems:
        problems.append(Problem(where, "no package is named", "write one name a line"))
    if problems:
        raise InputError(*problems)
    return tuple(sorted(found))


def read_packages(root: Path, arch: str) -> tuple[str, ...]:
    """Return the package names of the list in the checkout ``root``."""
    return parse_packages(_read(root, PACKAGES).decode(), arch)


def image_key(root: Path, arch: str | None = None) -> str:
    """Return the name of the image that the checkout ``root`` describes: a hash over all that goes into it.

    Raises InputError when an input is missing or wrong.
    """
    arch = arch or architecture()
    inputs = {
        "suite": SUITE,
        "arch": arch,
        "epoch": SOURCE_DATE_EPOCH,
        "packages": read_packages(root, arch),
        "files": {str(path): _fingerprint(root, path) for path in _input_files(root)},
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:_KEY_LENGTH]


def mmdebstrap_argv(
    *, target: Path, packages: Sequence[str], arch: str, files_before: Path, log: Path
) -> tuple[str, ...]:
    """Return the command that makes the tree. No mirror is named: mmdebstrap knows Debian's own for the suite."""
    return (
        "mmdebstrap",
        "--verbose",
        f"--logfile={log}",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        f"--architectures={arch}",
        '--aptopt=APT::Install-Recommends "false"',
        f"--dpkgopt={UNSAFE_IO}",
        # sync-in is a hook that mmdebstrap runs itself; it splits the words as a shell would.
        f"--essential-hook=sync-in {shlex.quote(str(files_before))} /",
        f"--include={','.join(packages)}",
        SUITE,
        str(target),
    )


def mmdebstrap_environment() -> dict[str, str]:
    """Return the variables that the command needs besides the builder's own."""
    return {
        "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH),
        "LC_ALL": "C.UTF-8",
        # The kernel's installer makes no initramfs: the one made when all packages are there is enough.
        "INITRD": "No",
    }


def pip_argv(*, python: str, requirements: Path, target: Path, arch: str) -> tuple[str, ...]:
    """Return the command that unpacks the pinned wheels for the image's Python, run by another Python."""
    machine = _WHEEL_MACHINES[arch]
    return (
        *(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"),
        *("--target", str(target)),
        *(word for platform_ in _WHEEL_PLATFORMS for word in ("--platform", f"{platform_}_{machine}")),
        *("--python-version", PYTHON_VERSION),
        *("--implementation", "cp", "--abi", f"cp{PYTHON_VERSION.replace('.', '')}"),
        *("--only-binary=:all:", "--no-deps", "--require-hashes", "--no-compile"),
        *("--requirement", str(requirements)),
    )


def _input_files(root: Path) -> list[Path]:
    """Return the files that count with their whole content, relative to ``root``, sorted."""
    copied = (
        path.relative_to(root)
        for folder in (FILES_BEFORE, FILES_AFTER)
        for path in (root / folder).rglob("*")
        if path.is_file()
    )
    return sorted([*copied, *_CODE, REQUIREMENTS])


def _fingerprint(root: Path, path: Path) -> str:
    content = hashlib.sha256(_read(root, path)).hexdigest()
    return f"{content} {'x' if os.access(root / path, os.X_OK) else '-'}"


def _read(root: Path, path: Path) -> bytes:
    try:
        return (root / path).read_bytes()
    except OSError as error:
        raise InputError(
            Problem(str(path), f"an input of the image cannot be read: {error.strerror}", f"restore it below {root}")
        ) from error
