"""What the shop's images need from the network: the bases' trees, and the Python packages of its services."""

from __future__ import annotations

import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path

from underlay.errors import NotReady, Problem
from underlay.image.isolate import BUILD_TIMEOUT, STEP_TIMEOUT, bound, run_inside, secluded
from underlay.image.lockfile import Package, lock_text
from underlay.image.recipe import architecture, mmdebstrap_environment
from underlay.packages import search_path
from underlay.process import run
from underlay.progress import Progress
from underlay.shop import recipe, tree
from underlay.shop.parts import BASES, Base
from underlay.shop.store import Supplies, SuppliesManifest, SuppliesStore, lock_of

#: Trees that are made at the same time: each downloads, then works.
_AT_ONCE = 2
#: Characters of mmdebstrap's log that a message shows.
_TAIL = 2000


def fetch(root: Path, cache: Path | None, progress: Progress, *, force: bool = False) -> Supplies:
    """Return what the images of the checkout ``root`` need, fetched first unless it is there (or with ``force``).

    The caller has the lock of the image store. Raises NotReady when it cannot be fetched.
    """
    store = SuppliesStore(cache)
    key = recipe.supplies_key(root)
    store.sweep()
    if not force and (supplies := store.find(key)) is not None:
        return supplies
    with store.workplace(key) as place:
        manifest = gather(place, key, root, progress)
        run(("sync", "--file-system", str(place)), timeout=STEP_TIMEOUT, where="image shop")
        return store.publish(place, key, manifest)


def gather(place: Path, key: str, root: Path, progress: Progress) -> SuppliesManifest:
    """Fetch everything into the directory ``place`` and return what it is."""
    created, started = datetime.now(tz=UTC), time.monotonic()
    arch = architecture()
    trees, wheels = place / recipe.TREES, place / recipe.WHEELS
    for folder in (trees, wheels):
        folder.mkdir()
    progress.step(f"fetch Debian packages for {', '.join(base.name for base in BASES)}, and Python packages")
    pool = ThreadPoolExecutor(max_workers=_AT_ONCE)
    try:
        fetched = pool.submit(_fetch_wheels, root, wheels, arch)
        made = [pool.submit(_make_tree, base, place, arch) for base in BASES]
        packages = {package for each in as_completed(made) for package in each.result()}
        fetched.result()
    finally:
        # After a failure, or Ctrl-C, nothing new is begun; the directory goes when nobody writes in it any more.
        pool.shutdown(cancel_futures=True)
    lock_of(place).write_text(lock_text(tuple(packages)))
    return SuppliesManifest(
        key=key,
        size_bytes=sum(path.stat().st_size for path in place.rglob("*") if path.is_file()),
        build_seconds=round(time.monotonic() - started, 1),
        created=created.isoformat(timespec="seconds"),
    )


def _make_tree(base: Base, place: Path, arch: str) -> tuple[Package, ...]:
    """Pack a base's tree, and return its packages."""
    folder, log = place / base.name, place / f"{base.name}.log"
    argv = recipe.mmdebstrap_argv(base, target=folder, arch=arch, log=log)
    environment = {**os.environ, "PATH": search_path(), **mmdebstrap_environment()}
    done = run(secluded(argv), timeout=BUILD_TIMEOUT, check=False, env=environment, where="image shop")
    said = log.read_text(errors="replace") if log.exists() else ""
    if not done.ok:
        what = f"mmdebstrap ended with exit code {done.returncode}; it said last:\n{(said + done.stderr)[-_TAIL:]}"
        hint = "is Debian's archive reachable from this machine? `apt-get update` says so"
        raise NotReady(Problem(f"image shop, base {base.name}", what, hint))
    tree.finish(folder, base.all_dropped)
    if base.compiled:
        places = [f"/{path}" for path in base.compiled]
        # Trusted without a look at the source, so that dates do not matter (PEP 552).
        compile_all = ("-P", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", *places)
        run_inside(folder, ("/usr/bin/python3", *compile_all))
    run(recipe.pack_argv(folder, place / recipe.TREES / base.tree), timeout=STEP_TIMEOUT, where="image shop")
    shutil.rmtree(folder)
    log.unlink()
    return tuple(Package(*words) for words in recipe.fetched_packages(said))


def _fetch_wheels(root: Path, target: Path, arch: str) -> None:
    requirements = root / recipe.REQUIREMENTS
    argv = recipe.wheels_argv(python=sys.executable, requirements=requirements, target=target, arch=arch)
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}  # pip itself is not taken from where the caller stands
    run(bound(argv), timeout=BUILD_TIMEOUT, env=environment, where="image shop")
