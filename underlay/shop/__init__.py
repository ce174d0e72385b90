"""The shop's container images: built once, on the workstation, in a host that is thrown away; hosts never build.

What is built is the directory of a registry (Debian's docker-registry), which any host can serve as it is. Two steps,
each cached by what goes into it: what comes over the network (``supplies``: Debian packages, wheels), and the images.

>>> from underlay.progress import Quiet
>>> from underlay.shop import build_shop
>>> shop = build_shop(progress=Quiet())  # doctest: +SKIP
>>> shop.image("gateway").digest  # doctest: +SKIP
'sha256:0123...'
"""

from underlay.shop.build import build_shop, clean_shop, find_shop, list_shops, verify_shop
from underlay.shop.recipe import shop_key
from underlay.shop.store import ShopImage, ShopImages

__all__ = [
    "ShopImage",
    "ShopImages",
    "build_shop",
    "clean_shop",
    "find_shop",
    "list_shops",
    "shop_key",
    "verify_shop",
]
