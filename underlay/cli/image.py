"""`./lab image ...`: the root filesystem that every host is booted from."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from underlay import needs, packages
from underlay.box.build import BOX_NAME, box_key, build_box, clean_boxes, list_boxes, missing_packages
from underlay.box.store import Box, Provider
from underlay.cli.progress import Bar
from underlay.cli.shop import shop, shop_record, shop_table
from underlay.image import (
    Image,
    build_image,
    clean_images,
    image_key,
    image_users,
    list_images,
    used_keys,
    verify_image,
)
from underlay.repository import REPOSITORY
from underlay.shop import ShopImages, clean_shop, list_shops, verify_shop
from underlay.topology import Json


@click.group()
def image() -> None:
    """Build, list, check and remove the image that hosts are booted from, its boxes, and the shop's images."""


image.add_command(shop)


@image.command()
@click.option("--force", is_flag=True, help="Build it again although it is there, with the archive's newest packages.")
def build(*, force: bool) -> None:
    """Build the image that packages.txt and requirements/image.txt describe.

    One that is there already is only named. It takes about a minute on two cores, and 1.1 GB below the cache directory
    ($UNDERLAY_CACHE_DIR, else underlay below $XDG_CACHE_HOME, else ~/.cache/underlay).

    \b
    Examples:
      ./lab image build
      ./lab image build --force
    """
    with Bar() as bar:
        packages.install_missing(needs.IMAGE, bar, lambda text: click.echo(text, err=True))
        built = build_image(progress=bar, force=force)
    click.echo(f"image {built.key}  sha256 {built.sha256}")
    click.echo(f"{decimal(built.size_bytes)} in {built.path}")


@image.command()
@click.option(
    "--provider",
    type=click.Choice([provider.value for provider in Provider]),
    default=Provider.LIBVIRT.value,
    show_default=True,
    help="What will run it.",
)
@click.option("--force", is_flag=True, help="Build it again although it is there; it gets a newer version.")
def box(*, provider: str, force: bool) -> None:
    """Turn the image into a Vagrant box: the same tree, on a disk that starts by itself.

    The image is built first if need be; the box itself needs no network, half a minute for libvirt and one for
    VirtualBox, and 0.4 GB. `vagrant up` in this checkout builds and adds it by itself.

    \b
    Examples:
      ./lab image box
      ./lab image box --provider virtualbox
    """
    with Bar() as bar:
        packages.install_missing((*needs.IMAGE, *missing_packages()), bar, lambda text: click.echo(text, err=True))
        built = build_box(Provider(provider), progress=bar, force=force)
    click.echo(f"box {BOX_NAME} {built.version} for {built.provider}  sha256 {built.sha256}")
    click.echo(f"{decimal(built.size_bytes)} in {built.file}")
    click.echo(f"to add it by hand: vagrant box add --provider {built.provider} {built.catalogue}")


@image.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def list_(*, as_json: bool) -> None:
    """List the images that are there, which labs use them, the boxes made from them, and the shop's images.

    What the present checkout describes is marked.

    \b
    Examples:
      ./lab image list
      ./lab image list --json
    """
    current = image_key(REPOSITORY)
    images = list_images()
    boxes, shops = list_boxes(), list_shops()
    if as_json:
        click.echo(json.dumps([_record(item, current, boxes, shops) for item in images], indent=2))
        return
    if not images:
        click.echo("no image has been built yet: ./lab image build")
        return
    table = Table("image", "built", "size", "used by", "sha256")
    for item in images:
        name = f"{item.key} (current)" if item.key == current else item.key
        users = ", ".join(image_users(item)) or "-"
        table.add_row(name, f"{item.built:%Y-%m-%d %H:%M} UTC", decimal(item.size_bytes), users, item.sha256)
    console = Console()
    console.print(table)
    if boxes:
        console.print(_boxes_table(boxes, current))
    for each in shops:
        console.print(shop_table(each))


@image.command()
@click.option("--all", "all_", is_flag=True, help="Remove the current image too; refused while a lab uses one.")
def clean(*, all_: bool) -> None:
    """Remove images that are neither current nor in use, their boxes, and what interrupted builds left.

    Of the shop's images the current ones stay.

    What Vagrant has added stays: `vagrant box remove` takes it away.

    \b
    Examples:
      ./lab image clean
      ./lab image clean --all
    """
    keep = () if all_ else (image_key(REPOSITORY), *used_keys())
    freed = clean_images(keep=keep) + clean_boxes(keep_images=keep) + clean_shop(keep=not all_)
    click.echo(f"{decimal(freed)} freed")


@image.command()
@click.option("--shop", "of_shop", is_flag=True, help="The shop's images instead: each must get the same digest.")
def verify(*, of_shop: bool) -> None:
    """Build the image again from the same inputs and compare: exit 0 if it is the same to the last bit.

    Exit 1 lists the files that differ, or the packages whose versions the archive has changed since. The image itself
    is compared with what was written down when it was built, and is not replaced.

    \b
    Examples:
      ./lab image verify
      ./lab image verify --shop
    """
    with Bar() as bar:
        if of_shop:
            shops = verify_shop(progress=bar)
            click.echo(f"shop {shops.key}: built again, the same digests of {len(shops.images)} images")
            return
        same = verify_image(progress=bar)
    click.echo(f"image {same.key}: built again, the same sha256 {same.sha256}")


def _record(item: Image, current: str, boxes: Iterable[Box], shops: Iterable[ShopImages]) -> dict[str, Json]:
    return {
        "key": item.key,
        "current": item.key == current,
        "path": str(item.path),
        "sha256": item.sha256,
        "built": item.built.isoformat(),
        "size_bytes": item.size_bytes,
        "users": list(image_users(item)),
        "boxes": [_box_record(each) for each in boxes if each.image_key == item.key],
        "shops": [shop_record(each) for each in shops if each.image_key == item.key],
    }


def _box_record(item: Box) -> dict[str, Json]:
    return {
        "name": BOX_NAME,
        "provider": item.provider.value,
        "version": item.version,
        "file": str(item.file),
        "catalogue": str(item.catalogue),
        "sha256": item.sha256,
        "built": item.built.isoformat(),
        "size_bytes": item.size_bytes,
    }


def _boxes_table(boxes: Iterable[Box], current: str) -> Table:
    """Return the boxes; current is one whose image and recipe are those of this checkout."""
    table = Table("box", "image", "built", "size", "version")
    for item in boxes:
        present = item.image_key == current and item.key == box_key(current, item.provider)
        name = f"{item.provider} (current)" if present else item.provider.value
        size = decimal(item.size_bytes)
        table.add_row(name, item.image_key, f"{item.built:%Y-%m-%d %H:%M} UTC", size, item.version)
    return table
