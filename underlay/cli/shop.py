"""`./lab image shop`: the shop's container images, and how they are shown."""

from __future__ import annotations

import click
from rich.filesize import decimal
from rich.table import Table

from underlay import needs, packages
from underlay.cli.progress import Bar
from underlay.repository import REPOSITORY
from underlay.shop import ShopImages, build_shop, shop_key
from underlay.topology import Json

#: Digits of a digest that tell it from others.
_SHORT = 12


@click.command()
@click.option(
    "--force", is_flag=True, help="Build them again although they are there, from the archive's newest packages."
)
def shop(*, force: bool) -> None:
    """Build the shop's container images: gateway, product, order, edge, cache, database.

    They are built from services/, in a host that is thrown away, without any network; what they need is fetched before.
    Each is tried, and looked into, before it counts. It takes about a minute on two cores, after the hosts' image,
    which is built first if need be, and half a gigabyte below the cache directory.

    \b
    Examples:
      ./lab image shop
      ./lab image shop --force
    """
    with Bar() as bar:
        wanted = (*needs.IMAGE, *needs.HOSTS)
        packages.install_missing(wanted, bar, lambda text: click.echo(text, err=True))
        built = build_shop(progress=bar, force=force)
    for image in built.images:
        click.echo(f"{image.name:<9} {decimal(image.size_bytes):>8}  {image.repository}@{image.digest}")
    click.echo(f"{decimal(built.size_bytes)} in {built.registry}")


def shop_table(item: ShopImages) -> Table:
    """Return one build: each image with bytes of its files, bytes that a pull moves, and those of its layers' files."""
    mark = " (current)" if item.key == shop_key(REPOSITORY) else ""
    title = f"shop {item.key}{mark}, built {item.built:%Y-%m-%d %H:%M} UTC"
    table = Table(title=title, title_justify="left")
    for name in ("image", "size", "packed", "layers, the lowest first", "digest"):
        table.add_column(name, no_wrap=name != "layers, the lowest first")
    for image in item.images:
        layers = ", ".join(decimal(layer.size_bytes) for layer in image.layers)
        digest = image.digest.removeprefix("sha256:")[:_SHORT]
        table.add_row(image.name, decimal(image.size_bytes), decimal(image.packed_bytes), layers, digest)
    return table


def shop_record(item: ShopImages) -> dict[str, Json]:
    """Return a build for JSON."""
    return {
        "key": item.key,
        "current": item.key == shop_key(REPOSITORY),
        "registry": str(item.registry),
        "built": item.built.isoformat(),
        "size_bytes": item.size_bytes,
        "images": [
            {
                "name": image.name,
                "repository": image.repository,
                "digest": image.digest,
                "user": image.user,
                "size_bytes": image.size_bytes,
                "packed_bytes": image.packed_bytes,
                "layers": [
                    {"digest": layer.digest, "size_bytes": layer.size_bytes, "packed_bytes": layer.packed_bytes}
                    for layer in image.layers
                ],
            }
            for image in item.images
        ],
    }
