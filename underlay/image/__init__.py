"""One Debian root filesystem, built from a list of packages: every host of a lab is booted from it.

Virtual machines are booted from boxes made of it: ``underlay.box``.

>>> from underlay.image import build_image
>>> from underlay.progress import Quiet
>>> image = build_image(progress=Quiet())  # doctest: +SKIP
>>> image.rootfs  # doctest: +SKIP
PosixPath('.../underlay/images/0123456789abcdef/rootfs')
"""

from underlay.image.build import build_image, clean_images, find_image, list_images, used_keys, verify_image
from underlay.image.recipe import image_key
from underlay.image.store import Image, image_users, release_image, use_image

__all__ = [
    "Image",
    "build_image",
    "clean_images",
    "find_image",
    "image_key",
    "image_users",
    "list_images",
    "release_image",
    "use_image",
    "used_keys",
    "verify_image",
]
