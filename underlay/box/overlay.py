"""A tree that can be changed while the cached one stays as it is: overlayfs in a mount namespace of its own.

Run as a module it is the inside of :func:`run_overlaid`: it mounts, then runs the program.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from underlay.image.isolate import INSIDE, STEP_TIMEOUT, secluded
from underlay.process import Completed, attach, run
from underlay.repository import REPOSITORY

#: Names below a layer's directory. The mount uses them as they are, relative to that directory: the option string of
#: overlayfs has no way to write a path that holds a comma.
_LOWER, _UPPER, _WORK, _MERGED = "lower", "upper", "work", "merged"
_OPTIONS = f"lowerdir={_LOWER},upperdir={_UPPER},workdir={_WORK}"


@dataclass(frozen=True, slots=True)
class Layer:
    """The changes to a tree, in a directory of their own. Nobody but programs run with it sees them merged."""

    path: Path

    @classmethod
    def over(cls, lower: Path, path: Path) -> Layer:
        """Make an empty layer over the tree ``lower`` in the directory ``path``, which must not be there."""
        path.mkdir()
        for name in (_UPPER, _WORK, _MERGED):
            (path / name).mkdir()
        (path / _UPPER).chmod(lower.stat().st_mode & 0o7777)
        (path / _LOWER).symlink_to(lower.absolute())
        return cls(path)

    @property
    def changes(self) -> Path:
        """Where files may be put that the merged tree shall have; not while a program runs with the layer."""
        return self.path / _UPPER

    def lower(self, name: str) -> Path:
        """Return a path of the tree below, as it is without the changes."""
        return self.path / _LOWER / name

    @property
    def merged(self) -> Path:
        """Where a program run with the layer finds the whole tree."""
        return self.path / _MERGED


def run_overlaid(
    layer: Layer, argv: Sequence[str], *, timeout: float = STEP_TIMEOUT, env: Mapping[str, str] | None = None
) -> Completed:
    """Run a program that sees the layer's tree at ``layer.merged``. Raises as :func:`underlay.process.run` does."""
    inside = (sys.executable, "-P", "-m", "underlay.box.overlay", *argv)
    environment = {**(os.environ if env is None else env), "PYTHONPATH": str(REPOSITORY)}
    return run(secluded(inside), timeout=timeout, env=environment, cwd=layer.path, where="box")


def run_in_layer(layer: Layer, argv: Sequence[str]) -> Completed:
    """Run a program of the layer's tree with that tree as its root directory."""
    return run_overlaid(layer, ("chroot", str(layer.merged), *argv), env=INSIDE)


def main(argv: Sequence[str]) -> int:
    """Mount the layer in the present directory (nobody else is in this mount namespace) and run ``argv``."""
    run(("mount", "-t", "overlay", "-o", _OPTIONS, "underlay", _MERGED), timeout=STEP_TIMEOUT, where="box")
    return attach(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
