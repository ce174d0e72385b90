"""The image's own Python environment: Debian's interpreter with our pinned packages."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import shutil
from pathlib import Path

from underlay.image.isolate import run_inside
from underlay.image.recipe import PYTHON_VERSION

#: Where it lies in the image.
HOME = Path("/opt/underlay")
_SITE = HOME / f"lib/python{PYTHON_VERSION}/site-packages"

#: Where hosts keep compiled modules (PYTHONPYCACHEPREFIX): the repository is read-only there.
CACHE = Path("/var/cache/underlay/python")
#: What of the image is found compiled there: Debian's Python and its packages, and our environment.
_COMPILED = (Path(f"/usr/lib/python{PYTHON_VERSION}"), Path("/usr/lib/python3/dist-packages"), _SITE)

_SCRIPT = """\
#!{python}
import sys

from {module} import {name}

if __name__ == "__main__":
    sys.exit({call}())
"""


def site_packages(tree: Path) -> Path:
    """Return the directory of the environment's packages in a tree."""
    return tree / _SITE.relative_to("/")


def make_environment(tree: Path, packages: Path) -> None:
    """Make the environment in ``tree`` from the unpacked ``packages`` (which are moved, not copied)."""
    run_inside(tree, ("python3", "-m", "venv", "--without-pip", str(HOME)))
    # pip wrote scripts that start the builder's Python; the same scripts are written anew for the image's.
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for record in sorted(packages.glob("*.dist-info/RECORD")):
        record.write_text(without_scripts(record.read_text()))
    site = site_packages(tree)
    for item in sorted(packages.iterdir()):
        item.rename(site / item.name)
    packages.rmdir()
    _own(site)
    write_scripts(site, tree / (HOME / "bin").relative_to("/"))
    # Trusted without a look at the source: start-up reads no source file, and time stamps do not matter (PEP 552).
    compile_all = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(_SITE))
    run_inside(tree, (str(HOME / "bin/python3"), *compile_all))


def share_compiled(tree: Path) -> None:
    """Link the modules that are compiled beside their sources into the hosts' own place for compiled modules.

    Python with such a place does not look beside the sources (sys.pycache_prefix), so every host
    would compile the standard library anew, which under software emulation takes half a minute.
    """
    for top in _COMPILED:
        for compiled in sorted((tree / top.relative_to("/")).rglob("__pycache__/*.pyc")):
            there = Path("/", compiled.relative_to(tree))
            link = tree / CACHE.relative_to("/") / there.parent.parent.relative_to("/") / there.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(there)
    _own((tree / CACHE.relative_to("/")).parent)


def without_scripts(record: str) -> str:
    """Return a wheel's RECORD without the lines of scripts: they name files that pip made for another Python."""
    rows = [row for row in csv.reader(io.StringIO(record)) if row and Path(row[0]).parent.name != "bin"]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def write_scripts(site: Path, folder: Path) -> None:
    """Write the console scripts that the packages in ``site`` declare (entry points) into ``folder``."""
    for package in importlib.metadata.distributions(path=[str(site)]):
        for point in package.entry_points.select(group="console_scripts"):
            name = point.attr.partition(".")[0]
            text = _SCRIPT.format(python=HOME / "bin/python3", module=point.module, name=name, call=point.attr)
            script = folder / point.name
            script.write_text(text)
            script.chmod(0o755)


def _own(folder: Path) -> None:
    """Give all below ``folder`` the modes that the builder's umask may have taken from it."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)
