"""What the shop's images are made of: the bases with their Debian packages, and the images with their Dockerfiles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from underlay.image.recipe import PYTHON_VERSION

_MEGABYTE = 1_000_000
#: Most bytes of an image, and of one of the shop's own services, as `docker image inspect` says them on a host.
LIMIT, SERVICE_LIMIT = 150 * _MEGABYTE, 105 * _MEGABYTE

#: In every base: a place for users and protocols, a C library with its tools, a shell and the programs it is used with.
_COMMON = ("base-files", "base-passwd", "coreutils", "dash", "libc-bin", "netbase")
#: Taken out of every base, as patterns below its root: what people read, and what programs of packages need.
_COMMON_DROPPED = (
    "boot",
    "dev/*",
    "etc/apt",
    "etc/default",
    "etc/dpkg",
    "etc/init.d",
    "etc/logrotate.d",
    "etc/rc?.d",
    "etc/systemd",
    "usr/bin/dpkg*",
    "usr/bin/localedef",
    "usr/bin/update-alternatives",
    "usr/lib/dpkg",
    "usr/lib/systemd",
    "usr/share/applications",
    "usr/share/base-passwd",
    "usr/share/bash-completion",
    "usr/share/binfmts",
    "usr/share/bug",
    "usr/share/debconf",
    "usr/share/doc-base",
    "usr/share/i18n",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/menu",
    "usr/share/perl5",
    "usr/share/pixmaps",
    "var/cache/*",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/lib/systemd",
    "var/log/*",
)
#: The times of all places but UTC: the shop has one time.
_ZONES = ("usr/share/zoneinfo",)
#: Other character sets than UTF-8, which Python and PostgreSQL convert by themselves.
_CHARSETS = ("usr/lib/*-linux-gnu/gconv",)
_PYTHON = f"usr/lib/python{PYTHON_VERSION}"
_PERL = (
    "usr/bin/*perl*",
    "usr/lib/*-linux-gnu/libperl.so*",
    "usr/lib/*-linux-gnu/perl*",
    "usr/share/perl",
)


@dataclass(frozen=True, slots=True)
class Base:
    """A tree of Debian packages, and what is taken out of it, as patterns. ``compiled`` is made into byte code."""

    name: str
    packages: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    compiled: tuple[str, ...] = ()

    @property
    def repository(self) -> str:
        """Its name in the registry."""
        return f"underlay/base-{self.name}"

    @property
    def tree(self) -> str:
        """The name of the file that its tree is packed in."""
        return f"{self.name}.tar"

    @property
    def all_packages(self) -> tuple[str, ...]:
        """Its packages, those that every base has among them."""
        return tuple(sorted({*_COMMON, *self.packages}))

    @property
    def all_dropped(self) -> tuple[str, ...]:
        """The patterns of what is taken out, those of every base among them."""
        return (*_COMMON_DROPPED, *self.dropped)


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the shop; ``dockerfile`` is below the repository, ``limit`` the most bytes that it may have.

    ``arguments`` are the Dockerfile's, besides its bases; ``builder`` is the base that its parts are prepared on.
    ``user`` is the number of the user that it runs as: one for each image, above those of people and packages, so that
    a secret on a host can be one image's.
    """

    name: str
    base: str
    dockerfile: Path
    user: int
    limit: int = LIMIT
    arguments: tuple[tuple[str, str], ...] = ()
    builder: str | None = None

    @property
    def repository(self) -> str:
        """Its name in a registry."""
        return f"underlay/{self.name}"


BASES = (
    Base(
        "python",
        ("python3",),
        dropped=(
            *_ZONES,
            *_CHARSETS,
            "usr/bin/openssl",
            f"{_PYTHON}/config-*",
            f"{_PYTHON}/ensurepip",
            f"{_PYTHON}/idlelib",
            f"{_PYTHON}/lib2to3",
            f"{_PYTHON}/pydoc_data",
            f"{_PYTHON}/test",
            f"{_PYTHON}/tkinter",
            f"{_PYTHON}/turtledemo",
        ),
        compiled=(_PYTHON,),
    ),
    # The services' packages are prepared on it; it is part of none of them.
    Base("python-build", ("binutils", "findutils", "python3")),
    # netcat is what the health check asks with.
    Base("nginx", ("netcat-openbsd", "nginx-light"), dropped=(*_ZONES, *_CHARSETS, *_PERL, "etc/perl")),
    Base("redis", ("redis-server",), dropped=(*_ZONES, *_CHARSETS, *_PERL, "etc/perl")),
    Base(
        "postgres",
        ("grep", "postgresql-17"),
        dropped=(
            *_PERL,
            "etc/perl",
            # Its just-in-time compiler: 190 MB, of use for queries of seconds only.
            "usr/lib/*-linux-gnu/libLLVM*",
            "usr/lib/*-linux-gnu/libz3*",
            "usr/lib/postgresql/*/lib/bitcode",
            "usr/lib/postgresql/*/lib/llvmjit*",
            *_CHARSETS,
            "usr/lib/postgresql/*/lib/pgxs",
            "usr/lib/postgresql/*/bin/pgbench",
            "usr/share/postgresql-common",
            "usr/share/zoneinfo/[A-DF-Z]*",
            "usr/share/zoneinfo/E[A-Za-su-z]*",
        ),
    ),
)


def _service(name: str, user: int) -> Image:
    dockerfile, arguments = Path("services/Dockerfile"), (("SERVICE", name),)
    return Image(name, "python", dockerfile, user, SERVICE_LIMIT, arguments, builder="python-build")


IMAGES = (
    _service("gateway", 10001),
    _service("product", 10002),
    _service("order", 10003),
    Image("edge", "nginx", Path("services/edge/Dockerfile"), 10004),
    Image("cache", "redis", Path("services/cache/Dockerfile"), 10005),
    Image("database", "postgres", Path("services/database/Dockerfile"), 10006),
)
