"""What the shop's images are made from, the keys that name them, and the commands that make them. Starts nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from underlay import __version__
from underlay.errors import InputError, Problem
from underlay.image import recipe
from underlay.image.recipe import SOURCE_DATE_EPOCH, SUITE
from underlay.shop.parts import BASES, IMAGES, Base, Image

#: Where images get their names from while they are built: a registry inside of the workshop, on its loopback.
REGISTRY = "localhost:5000"
#: What the workshop sees of the materials below the directory that hosts see the repository in.
CONTEXT, TREES, WHEELS = "context", "trees", "wheels"

#: Files of the repository, relative to it.
REQUIREMENTS = Path("requirements/services.txt")
_HERE = Path("underlay/shop")
BASE_DOCKERFILE = _HERE / "base.Dockerfile"
#: The code that decides what is made. It counts as an input, as it does for the hosts' image.
_SUPPLIES_CODE = tuple(_HERE / name for name in ("supplies.py", "tree.py"))
_SHOP_CODE = (*(_HERE / name for name in ("build.py", "recipe.py")), BASE_DOCKERFILE)
_SERVICES = Path("services")
_KEY_LENGTH = 16
#: A note of how it was made (provenance) would hold the time at which it was.
_BUILD = ("docker", "buildx", "build", "--network", "none", "--provenance", "false", "--progress", "plain")
#: Layers are packed several times while images are built: the least work costs a tenth more bytes, and halves the time.
_COMPRESSION = "compression=gzip,compression-level=1,force-compression=true"
#: A package that apt says it fetches: `Get:3 http://... trixie/main amd64 libc6 amd64 2.41-12 [2850 kB]`.
_FETCHED = re.compile(r"^Get:\d+ \S+ \S+ \S+ (\S+) (\S+) (\S+) \[", re.MULTILINE)


def supplies_key(root: Path, arch: str | None = None) -> str:
    """Return the name of what the checkout ``root`` needs from the network: a hash over what decides it."""
    inputs = {
        "suite": SUITE,
        "arch": arch or recipe.architecture(),
        "epoch": SOURCE_DATE_EPOCH,
        "bases": [[base.name, base.all_packages, base.all_dropped, base.compiled] for base in BASES],
        "files": _digests(root, (*_SUPPLIES_CODE, REQUIREMENTS)),
    }
    return _key(inputs)


def shop_key(root: Path, arch: str | None = None) -> str:
    """Return the name of the shop's images that the checkout ``root`` describes: a hash over all that goes into them.

    The hosts' image counts too: the programs that build are of it. Raises InputError when an input is missing.
    """
    inputs = {
        "image": recipe.image_key(root, arch),
        "supplies": supplies_key(root, arch),
        "version": __version__,
        "images": [{**asdict(image), "dockerfile": str(image.dockerfile)} for image in IMAGES],
        "files": _digests(root, (*_SHOP_CODE, *context_files(root))),
    }
    return _key(inputs)


def context_files(root: Path) -> tuple[Path, ...]:
    """Return the files that builds see, relative to ``root``, sorted: the services with their Dockerfiles, the pins."""
    dockerfiles = {image.dockerfile for image in IMAGES}
    ignores = {path.with_name(f"{path.name}.dockerignore") for path in dockerfiles}
    sources = {path.relative_to(root) for path in (root / _SERVICES).glob("**/*.py")}
    scripts = {path.relative_to(root) for path in (root / _SERVICES).glob("*/*.sh")}
    return tuple(sorted({*dockerfiles, *ignores, *sources, *scripts, REQUIREMENTS}))


def mmdebstrap_argv(base: Base, *, target: Path, arch: str, log: Path) -> tuple[str, ...]:
    """Return the command that makes a base's tree. No script of a package is run (mmdebstrap(1), "extract")."""
    return (
        "mmdebstrap",
        "--verbose",
        f"--logfile={log}",
        "--mode=root",
        "--variant=extract",
        "--format=directory",
        f"--architectures={arch}",
        '--aptopt=APT::Install-Recommends "false"',
        f"--include={','.join(base.all_packages)}",
        SUITE,
        str(target),
    )


def fetched_packages(log: str) -> tuple[tuple[str, str, str], ...]:
    """Return name, version and architecture of each package that mmdebstrap's log says it fetched."""
    return tuple((name, version, arch) for name, arch, version in _FETCHED.findall(log))


def wheels_argv(*, python: str, requirements: Path, target: Path, arch: str) -> tuple[str, ...]:
    """Return the command that fetches the pinned wheels for the images' Python, run by another Python."""
    install = recipe.pip_argv(python=python, requirements=requirements, target=target, arch=arch)
    # The same choice of platforms; "download" knows neither how to compile nor whose directory it writes in.
    words = [word for word in install if word not in {"--no-compile", "--root-user-action=ignore"}]
    words[words.index("install")] = "download"
    words[words.index("--target")] = "--dest"
    return tuple(words)


def pack_argv(tree: Path, target: Path) -> tuple[str, ...]:
    """Return the command that packs a tree, the same to the last bit when it is packed again."""
    return (
        *("tar", "--create", f"--file={target}", "--sort=name", "--numeric-owner", "--format=pax"),
        "--pax-option=delete=atime,delete=ctime",
        *(f"--mtime=@{SOURCE_DATE_EPOCH}", f"--directory={tree}", "."),
    )


def reference(repository: str, tag: str) -> str:
    """Return an image's name in the workshop's registry."""
    return f"{REGISTRY}/{repository}:{tag}"


def base_argv(base: Base, *, tag: str, materials: str) -> tuple[str, ...]:
    """Return the command that builds a base's image from its packed tree, and pushes it.

    It has one layer, in which all is dated already.
    """
    return (
        *_BUILD,
        *("--output", f"type=image,name={reference(base.repository, tag)},push=true,{_COMPRESSION}"),
        *("--build-arg", f"TREE={base.tree}", "--file", f"{materials}/{CONTEXT}/{BASE_DOCKERFILE}"),
        f"{materials}/{TREES}",
    )


def image_argv(image: Image, *, tag: str, materials: str, target: str) -> tuple[str, ...]:
    """Return the command that builds an image into the archive ``target``; what it stands on is in the registry."""
    context = f"{materials}/{CONTEXT}"
    arguments = {"BASE": _base(image.base, tag), "USER_ID": str(image.user), "VERSION": __version__}
    wheels: tuple[str, ...] = ()
    if image.builder is not None:
        arguments["BUILDER"] = _base(image.builder, tag)
        wheels = ("--build-context", f"wheels={materials}/{WHEELS}")
    arguments |= dict(image.arguments)
    # Times can be rewritten in an archive, not on the way into Docker's own store.
    output = f"type=oci,dest={target},name={reference(image.repository, tag)},rewrite-timestamp=true,{_COMPRESSION}"
    return (
        *_BUILD,
        *("--output", output),
        *(word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")),
        *wheels,
        *("--file", f"{context}/{image.dockerfile}", context),
    )


def _base(name: str, tag: str) -> str:
    return next(reference(base.repository, tag) for base in BASES if base.name == name)


def build_environment() -> dict[str, str]:
    """Return the variables that a build needs."""
    return {"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH)}


def _digests(root: Path, files: Sequence[Path]) -> dict[str, str]:
    return {str(path): hashlib.sha256(_read(root, path)).hexdigest() for path in files}


def _read(root: Path, path: Path) -> bytes:
    try:
        return (root / path).read_bytes()
    except OSError as error:
        what = f"an input of the shop's images cannot be read: {error.strerror}"
        raise InputError(Problem(str(path), what, f"restore it below {root}")) from error


def _key(inputs: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:_KEY_LENGTH]
