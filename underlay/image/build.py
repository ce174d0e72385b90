"""Building an image, and checking that building it again gives the same."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from underlay import needs, packages
from underlay.artifacts import refuse_to_wait, space_problems
from underlay.errors import CheckFailed, NotReady, Problem
from underlay.image import customise, pythonenv, recipe
from underlay.image.isolate import BUILD_TIMEOUT, STEP_TIMEOUT, bound, secluded
from underlay.image.lockfile import compare_locks, debian_packages, lock_text, python_packages
from underlay.image.store import Image, ImageStore, Manifest, Workplace, image_users, refuse_in_use
from underlay.image.tree import compare_trees, parse_tree, read_tree, tree_digest, tree_text
from underlay.packages import search_path
from underlay.process import run
from underlay.progress import Progress
from underlay.repository import REPOSITORY

#: Bytes that a build needs: the tree (about 1.1 GB), the packages while they are unpacked, and some room.
_BYTES_NEEDED = 2_500_000_000
#: Seconds between two looks at what mmdebstrap has written.
_WATCH_INTERVAL = 0.2
#: Characters of mmdebstrap's log that a message shows.
_TAIL = 2000
#: Differences that a message lists; more of them say nothing more.
_LISTED = 100

_PHASE = re.compile(r"^I: (running apt-get update|downloading packages|extracting|installing \w+ packages|cleaning)")
_PLANNED = re.compile(r"^\d+ upgraded, (\d+) newly installed")
_ONE_PART = re.compile(r"^(Get:|Unpacking |Setting up )")
#: Every package is fetched, unpacked and set up.
_PARTS_A_PACKAGE = 3


class DebstrapLog:
    """Reads mmdebstrap's log as it grows and tells the progress that it shows."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done = 0
        self._total = 0

    def feed(self, line: str) -> None:
        """Take one line of the log."""
        if phase := _PHASE.match(line):
            self._done = self._total = 0
            self._progress.step(f"mmdebstrap: {phase[1]}")
        elif planned := _PLANNED.match(line):
            self._done, self._total = 0, int(planned[1]) * _PARTS_A_PACKAGE
        elif self._total and _ONE_PART.match(line):
            self._done = min(self._done + 1, self._total)
            self._progress.update(self._done, self._total)


@dataclass(frozen=True, slots=True)
class _Built:
    """What a finished build is, before it has its place."""

    manifest: Manifest
    packages: str
    tree: str


def find_image(key: str | None = None, *, root: Path = REPOSITORY, cache: Path | None = None) -> Image | None:
    """Return the finished image of a key (default: the one that the checkout ``root`` describes), or None."""
    return ImageStore(cache).find(key or recipe.image_key(root))


def list_images(*, cache: Path | None = None) -> tuple[Image, ...]:
    """Return all finished images, the oldest first."""
    return ImageStore(cache).finished()


def build_image(
    *, progress: Progress, root: Path = REPOSITORY, cache: Path | None = None, force: bool = False
) -> Image:
    """Return the image that the checkout ``root`` describes, built first unless it is there (or with ``force``).

    Raises NotReady when the machine cannot build it, a program fails, or ``force`` would replace an image in use;
    InputError when an input is wrong.
    """
    store = ImageStore(cache)
    key = recipe.image_key(root)
    if not force and (image := store.find(key)) is not None:
        return image
    check_machine(store.path)
    with store.locked(lambda owner: progress.step(f"wait for another build (process {owner})")):
        store.sweep()
        present = store.find(key)
        if present is not None:
            if not force:
                return present  # the other builder made it
            refuse_in_use((present,))
        with store.workplace(key) as path:
            place = Workplace(path)
            built = _build(place, key, root, progress)
            progress.step("write the image to disk")
            place.write(built.packages, built.tree)
            run(("sync", "--file-system", str(path)), timeout=STEP_TIMEOUT, where="image")
            return store.publish(path, key, built.manifest)


def clean_images(*, keep: Collection[str] = (), cache: Path | None = None) -> int:
    """Remove all images but those of the keys in ``keep``, and what interrupted builds left; return the bytes freed.

    Raises NotReady, and removes nothing, when one of them is in use by a lab.
    """
    store = ImageStore(cache)
    if not store.path.exists():
        return 0
    with store.locked(refuse_to_wait):
        refuse_in_use([image for image in store.finished() if image.key not in keep])
        return store.clean(keep)


def used_keys(*, cache: Path | None = None) -> tuple[str, ...]:
    """Return the keys of the images that labs use."""
    return tuple(image.key for image in list_images(cache=cache) if image_users(image))


def verify_image(*, progress: Progress, root: Path = REPOSITORY, cache: Path | None = None) -> Image:
    """Check that the image is still as built, and that building it again gives the same sha256; return it.

    Raises CheckFailed with every difference; NotReady when there is no image yet.
    """
    store = ImageStore(cache)
    key = recipe.image_key(root)
    image = store.find(key)
    if image is None:
        raise NotReady(Problem(f"image {key}", "it has not been built", "build it first: ./lab image build"))
    check_machine(store.path)
    progress.step("read the image")
    recorded = image.tree.read_text()
    found = tree_text(read_tree(image.rootfs, progress.update))
    _compare(image, recorded, found, "it is not as it was built", "make it anew: ./lab image build --force")
    with store.locked(lambda owner: progress.step(f"wait for another build (process {owner})")):
        store.sweep()
        with store.workplace(key) as path:
            built = _build(Workplace(path), key, root, progress)
    changes = compare_locks(image.lock.read_text(), built.packages)
    if changes:
        hint = f"the archive has newer packages since {image.built:%Y-%m-%d}: ./lab image build --force takes them"
        what = "the same inputs now give other package versions, so files differ too"
        raise CheckFailed(
            Problem(f"image {key}", what, hint), *(Problem(f"image {key}", str(change)) for change in changes)
        )
    _compare(
        image, recorded, built.tree, "building it again gave another tree", "see what made each of these files differ"
    )
    return image


def check_machine(cache: Path) -> None:
    """Raise NotReady with everything that this machine lacks to build an image below ``cache``."""
    problems: list[Problem] = []
    if os.geteuid() != 0:
        problems.append(Problem("image", "only root can build an image", "run the same command with sudo"))
    problems += packages.problems(packages.missing(needs.IMAGE))
    if importlib.util.find_spec("pip") is None:
        what = f"{sys.executable} has no pip, which {needs.PIP.why}"
        problems.append(Problem("image", what, packages.how((needs.PIP,))))
    problems += space_problems(cache, _BYTES_NEEDED)
    if problems:
        raise NotReady(*problems)
    probe = run(secluded(("true",)), timeout=STEP_TIMEOUT, check=False)
    if not probe.ok:
        what = f"mount and process namespaces cannot be made here ({probe.stderr.strip()})"
        raise NotReady(Problem("image", what, "run it on a machine, or in a privileged container, that allows them"))


def _build(place: Workplace, key: str, root: Path, progress: Progress) -> _Built:
    """Make the tree in ``place`` and return what it is."""
    arch = recipe.architecture()
    created = datetime.now(tz=UTC)
    started = time.monotonic()
    # A second earlier: file systems date what they write by a coarser clock.
    built_after = created.timestamp() - 1
    wheels = place.path / "wheels"
    with ThreadPoolExecutor(max_workers=1) as pool:
        # The wheels come over the network while packages are unpacked.
        pip = recipe.pip_argv(python=sys.executable, requirements=root / recipe.REQUIREMENTS, target=wheels, arch=arch)
        env = {**os.environ, "PYTHONSAFEPATH": "1"}  # pip itself is not taken from where the caller stands
        fetched = pool.submit(run, bound(pip), timeout=BUILD_TIMEOUT, env=env, where="image")
        _debstrap(place, arch, root, progress)
        progress.step("add Python packages")
        fetched.result()
    tree = place.rootfs
    pythonenv.make_environment(tree, wheels)
    progress.step("configure")
    pythonenv.share_compiled(tree)
    customise.make_initramfs(tree)
    customise.drop_manuals(tree)
    customise.copy_files(root / recipe.FILES_AFTER, tree)
    customise.switch_units_off(tree)
    customise.forget(tree, built_after)
    progress.step("read the image")
    entries = read_tree(tree, progress.update)
    packages = debian_packages((tree / "var/lib/dpkg/status").read_text())
    text = tree_text(entries)
    manifest = Manifest(
        key=key,
        sha256=tree_digest(text),
        suite=recipe.SUITE,
        arch=arch,
        source_date_epoch=recipe.SOURCE_DATE_EPOCH,
        size_bytes=sum(entry.size for entry in entries),
        build_seconds=round(time.monotonic() - started, 1),
        created=created.isoformat(timespec="seconds"),
    )
    return _Built(manifest, lock_text((*packages, *python_packages(pythonenv.site_packages(tree)))), text)


def _debstrap(place: Workplace, arch: str, root: Path, progress: Progress) -> None:
    staged = place.path / "before"
    staged.mkdir(mode=0o755)
    customise.copy_files(root / recipe.FILES_BEFORE, staged)
    log = place.path / "mmdebstrap.log"
    log.touch()
    argv = recipe.mmdebstrap_argv(
        target=place.rootfs,
        packages=recipe.read_packages(root, arch),
        arch=arch,
        files_before=staged,
        log=log,
    )
    environment = {**os.environ, "PATH": search_path(), **recipe.mmdebstrap_environment()}
    ended = Event()
    with ThreadPoolExecutor(max_workers=1) as pool:
        watcher: Future[None] = pool.submit(_watch, log, DebstrapLog(progress), ended)
        try:
            done = run(secluded(argv), timeout=BUILD_TIMEOUT, check=False, env=environment, where="image")
        finally:
            ended.set()
        watcher.result()
    if not done.ok:
        said = (log.read_text(errors="replace") + done.stderr).strip()[-_TAIL:]
        hint = "is Debian's archive reachable from this machine? `apt-get update` says so"
        raise NotReady(
            Problem("image", f"mmdebstrap ended with exit code {done.returncode}; it said last:\n{said}", hint)
        )
    log.unlink()
    shutil.rmtree(staged)


def _watch(log: Path, reader: DebstrapLog, ended: Event) -> None:
    """Feed the log's lines to the reader until the writer has ended."""
    with log.open(errors="replace") as stream:
        line = ""
        last_look = False
        while not last_look:
            last_look = ended.wait(_WATCH_INTERVAL)
            while piece := stream.readline():
                line += piece
                if line.endswith("\n"):
                    reader.feed(line)
                    line = ""


def _compare(image: Image, before: str, after: str, what: str, hint: str) -> None:
    """Raise CheckFailed, naming the files, when two lists of files are not the same."""
    if tree_digest(before) == tree_digest(after) == image.sha256:
        return
    where = f"image {image.key}"
    differences = compare_trees(parse_tree(before), parse_tree(after))
    problems = [Problem(where, f"{what}: sha256 {image.sha256} expected, {tree_digest(after)} found", hint)]
    problems += [Problem(f"{where} {item.path}", item.what) for item in differences[:_LISTED]]
    if len(differences) > _LISTED:
        problems.append(Problem(where, f"and {len(differences) - _LISTED} more files"))
    raise CheckFailed(*problems)
