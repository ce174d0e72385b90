"""Programs that build an image end with the builder, even when it is killed, and leave no mount behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from underlay.image.recipe import SOURCE_DATE_EPOCH
from underlay.process import Completed, run

#: Seconds for the longest step (mmdebstrap: about one minute on two cores with a near mirror).
BUILD_TIMEOUT = 900.0
#: Seconds for one of the short programs.
STEP_TIMEOUT = 120.0

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: What programs inside the tree are told: nothing of the machine they are started from.
INSIDE = {
    "PATH": _PATH,
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH),
}


def bound(argv: Sequence[str]) -> tuple[str, ...]:
    """Return ``argv`` so that the kernel kills the program when its starter dies (prctl(2), PR_SET_PDEATHSIG)."""
    return ("setpriv", "--pdeathsig", "KILL", "--", *argv)


def secluded(argv: Sequence[str]) -> tuple[str, ...]:
    """Return ``argv`` so that it runs in mount and PID namespaces of its own.

    When it ends, however it ends, the kernel kills all that it started and drops all that it mounted.
    """
    return bound(("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--", *argv))


def run_inside(
    tree: Path, argv: Sequence[str], *, timeout: float = STEP_TIMEOUT, env: Mapping[str, str] | None = None
) -> Completed:
    """Run a program of the tree with the tree as its root directory. Raises as :func:`underlay.process.run` does."""
    environment = {**INSIDE, **(env or {})}
    return run(bound(("chroot", str(tree), *argv)), timeout=timeout, env=environment, where="image")
