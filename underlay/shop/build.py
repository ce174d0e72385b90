"""Building the shop's images, and checking that building them again gives the same digests."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from underlay.artifacts import refuse_to_wait, space_problems
from underlay.errors import CheckFailed, NotReady, Problem
from underlay.hosts.namespace.labs import preflight
from underlay.image import Image as HostImage
from underlay.image import build_image
from underlay.image.build import check_machine
from underlay.image.isolate import STEP_TIMEOUT
from underlay.image.lockfile import compare_locks
from underlay.image.store import ImageStore
from underlay.process import ProgramFailed, run
from underlay.progress import Progress
from underlay.repository import REPOSITORY
from underlay.shop import judge, recipe, trial
from underlay.shop.parts import BASES, IMAGES, Base, Image
from underlay.shop.registry import LayerFiles, Registry
from underlay.shop.store import (
    Layer,
    ShopImage,
    ShopImages,
    ShopManifest,
    ShopStore,
    Supplies,
    SuppliesStore,
    lock_of,
    registry_of,
)
from underlay.shop.supplies import fetch, gather
from underlay.shop.workshop import MATERIALS, Workshop, clear_away, open_workshop

#: Bytes that a build needs: supplies, a copy of them for the workshop, the workshop's disk, the registry.
_BYTES_NEEDED = 3_000_000_000
#: Images that are built at the same time. Packing takes one processor, and more of them only take memory.
_AT_ONCE = 2
#: Where archives lie in the workshop; its own disk is overlayfs, this is not.
_ARCHIVES = "/var/lib/docker"
#: Characters of what a builder said that a message shows.
_TAIL = 2000


def find_shop(*, root: Path = REPOSITORY, cache: Path | None = None) -> ShopImages | None:
    """Return the finished images that the checkout ``root`` describes, or None."""
    return ShopStore(cache).find(recipe.shop_key(root))


def list_shops(*, cache: Path | None = None) -> tuple[ShopImages, ...]:
    """Return all finished builds, the oldest first."""
    return ShopStore(cache).finished()


def build_shop(
    *, progress: Progress, root: Path = REPOSITORY, cache: Path | None = None, force: bool = False
) -> ShopImages:
    """Return the images that the checkout ``root`` describes, built first unless they are there (or with ``force``).

    The hosts' image is built first if need be; ``force`` also fetches what they need anew, and so takes the archive's
    newest packages. Raises NotReady when the machine cannot build them, a program fails, or what came of it is not what
    it must be.
    """
    store, key = ShopStore(cache), recipe.shop_key(root)
    if not force and (shop := store.find(key)) is not None:
        return shop
    refuse_machine(store.path)
    image = build_image(progress=progress, root=root, cache=cache)
    with _alone(cache, progress):
        _refuse_replaced(image, cache)
        store.sweep()
        if not force and (shop := store.find(key)) is not None:
            return shop  # the other builder made them
        supplies = fetch(root, cache, progress, force=force)
        with store.workplace(key) as place:
            manifest = _build(place, key, supplies, image, root, cache, progress)
            progress.step("write the images to disk")
            run(("sync", "--file-system", str(place)), timeout=STEP_TIMEOUT, where="image shop")
            return store.publish(place, key, manifest)


def verify_shop(*, progress: Progress, root: Path = REPOSITORY, cache: Path | None = None) -> ShopImages:
    """Check that building the images again, from packages fetched again, gives the same digests; return them.

    Raises CheckFailed with every difference; NotReady when they have not been built yet.
    """
    store, key = ShopStore(cache), recipe.shop_key(root)
    shop = store.find(key)
    old = SuppliesStore(cache).find(recipe.supplies_key(root))
    if shop is None or old is None:
        what = "they have not been built" if shop is None else "what they were made from is not there any more"
        raise NotReady(Problem(f"shop {key}", what, "build them first: ./lab image shop"))
    refuse_machine(store.path)
    image = build_image(progress=progress, root=root, cache=cache)
    with _alone(cache, progress):
        _refuse_replaced(image, cache)
        store.sweep()
        with store.workplace(key) as place:
            again = place / "supplies"
            again.mkdir()
            gather(again, old.key, root, progress)
            changes = compare_locks(old.lock.read_text(), lock_of(again).read_text())
            if changes:
                what = "the archive has other packages now, so files differ too"
                hint = "./lab image shop --force takes them"
                listed = (Problem(f"shop {key}", str(change)) for change in changes)
                raise CheckFailed(Problem(f"shop {key}", what, hint), *listed)
            supplies = Supplies(old.key, again, old.size_bytes, old.built)
            manifest = _build(place, key, supplies, image, root, cache, progress)
    differing = [one for one, other in zip(shop.images, manifest.images, strict=True) if one.digest != other.digest]
    if differing:
        what = "building it again gave another digest than {}"
        hint = "see which layer differs: `docker history`, and what its step writes"
        raise CheckFailed(*(Problem(f"shop {key}, {one.name}", what.format(one.digest), hint) for one in differing))
    return shop


def clean_shop(*, keep: bool, root: Path = REPOSITORY, cache: Path | None = None) -> int:
    """Remove all images and supplies but (with ``keep``) those of the checkout ``root``; return the bytes freed.

    What a killed build left goes too.
    """
    shops, supplies = ShopStore(cache), SuppliesStore(cache)
    if not shops.path.exists() and not supplies.path.exists():
        return 0
    with ImageStore(cache).locked(refuse_to_wait):
        clear_away(cache)
        freed = shops.clean({recipe.shop_key(root)} if keep else ())
        return freed + supplies.clean({recipe.supplies_key(root)} if keep else ())


def refuse_machine(cache: Path) -> None:
    """Raise NotReady with everything that this machine lacks to build below ``cache``."""
    check_machine(cache)
    problems = [*preflight(), *space_problems(cache, _BYTES_NEEDED)]
    if problems:
        raise NotReady(*problems)


def _refuse_replaced(image: HostImage, cache: Path | None) -> None:
    """Raise NotReady when the hosts' image was removed, or built anew, before we had the lock."""
    if ImageStore(cache).find(image.key) != image:
        what = "it was removed or replaced just now"
        raise NotReady(Problem(f"image {image.key}", what, "build the shop's images again: ./lab image shop"))


def _alone(cache: Path | None, progress: Progress) -> AbstractContextManager[None]:
    """Return the lock of all who build or remove images."""
    return ImageStore(cache).locked(lambda owner: progress.step(f"wait for another build (process {owner})"))


def _build(
    place: Path, key: str, supplies: Supplies, image: HostImage, root: Path, cache: Path | None, progress: Progress
) -> ShopManifest:
    """Make the registry's directory in ``place`` and return what is in it."""
    created, started = datetime.now(tz=UTC), time.monotonic()
    materials = place / "materials"
    lay_out(materials, supplies, root)
    with open_workshop(image.rootfs, materials, cache=cache, progress=progress) as shop:
        _build_all(shop, key, progress)
        progress.step("try the images")
        trial.run_shop(shop, key)
        shop.run(("supervisorctl", "stop", "registry"))
        Registry(shop.registry).take({image.repository for image in IMAGES}, key, registry_of(place))
    shutil.rmtree(materials)
    progress.step("look into the images")
    images = inspect(Registry(registry_of(place)), key)
    return ShopManifest(
        key=key,
        image_key=image.key,
        supplies=supplies.key,
        images=images,
        size_bytes=sum(path.stat().st_size for path in registry_of(place).rglob("*") if path.is_file()),
        build_seconds=round(time.monotonic() - started, 1),
        created=created.isoformat(timespec="seconds"),
    )


def lay_out(materials: Path, supplies: Supplies, root: Path) -> None:
    """Make the directory that the workshop sees: what builds use, and nothing else of the checkout."""
    shutil.copytree(supplies.trees, materials / recipe.TREES)
    shutil.copytree(supplies.wheels, materials / recipe.WHEELS)
    for path in (*recipe.context_files(root), recipe.BASE_DOCKERFILE):
        target = materials / recipe.CONTEXT / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, target)
    trial.lay_out(materials, root)
    # Whatever the umask here and the modes in the checkout are.
    for path in (materials, *materials.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def inspect(registry: Registry, tag: str) -> tuple[ShopImage, ...]:
    """Return the images of a registry; NotReady with everything that they are and must not be."""
    layers: dict[str, LayerFiles] = {}
    images: list[ShopImage] = []
    problems: list[Problem] = []
    for image in IMAGES:
        stored = registry.image(image.repository, tag)
        for digest, _ in stored.layers:
            if digest not in layers:
                layers[digest] = registry.layer(digest)
        own = [layers[digest] for digest, _ in stored.layers]
        problems += judge.problems(image, stored.configuration, own)
        sizes = tuple(Layer(layer.digest, layer.packed_bytes, layer.size_bytes) for layer in own)
        images.append(ShopImage(image.name, image.repository, stored.digest, stored.configuration.user, sizes))
    if problems:
        raise NotReady(*problems)
    return tuple(images)


def _build_all(shop: Workshop, tag: str, progress: Progress) -> None:
    """Build every image after what it stands on, two chains at a time."""
    pool = ThreadPoolExecutor(max_workers=_AT_ONCE)
    try:
        for done in as_completed([pool.submit(_build_chain, shop, tag, chain, progress) for chain in chains()]):
            done.result()
    finally:
        # After a failure, or Ctrl-C, what still builds is not waited for: it ends with the workshop.
        pool.shutdown(wait=False, cancel_futures=True)


def chains() -> tuple[tuple[Base | Image, ...], ...]:
    """Return the bases with the images that stand on them, in the order in which they can be built."""
    found: dict[str, tuple[Base | Image, ...]] = {}
    for image in IMAGES:
        names = (image.base,) if image.builder is None else (image.base, image.builder)
        first = tuple(base for base in BASES if base.name in names)
        found[image.base] = (*found.get(image.base, first), image)
    return tuple(found.values())


def _build_chain(shop: Workshop, tag: str, chain: Sequence[Base | Image], progress: Progress) -> None:
    for part in chain:
        progress.step(f"build {part.name}")
        recipe_of = recipe.BASE_DOCKERFILE if isinstance(part, Base) else part.dockerfile
        try:
            _build_one(shop, tag, part)
        except ProgramFailed as error:
            done = error.completed
            said = done.stderr[-_TAIL:].strip()
            what = f"it was not built (exit code {done.returncode}); its builder said last:\n{said}"
            raise NotReady(Problem(f"image shop, {part.name}", what, f"look at {recipe_of}")) from error


def _build_one(shop: Workshop, tag: str, part: Base | Image) -> None:
    """Build a base or an image, and put it into the registry."""
    if isinstance(part, Base):
        shop.run(recipe.base_argv(part, tag=tag, materials=MATERIALS), env=recipe.build_environment())
        return
    archive = f"{_ARCHIVES}/{part.name}.tar"
    argv = recipe.image_argv(part, tag=tag, materials=MATERIALS, target=archive)
    shop.run(argv, env=recipe.build_environment())
    shop.run(("docker", "load", "--quiet", "--input", archive))
    shop.run(("docker", "push", "--quiet", recipe.reference(part.repository, tag)))
    shop.run(("rm", archive))
