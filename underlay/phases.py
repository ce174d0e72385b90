"""The names of the phases, in the order in which they are taught: for the command, the suite, the Vagrantfile and tox.

What a phase is stands in ``provision/``, in a package of that name.
"""

from __future__ import annotations

#: A phase is added here once ``provision`` has it.
PHASES: tuple[str, ...] = ("phase1", "phase2", "phase3")
#: Those in which the shop's programs run.
WITH_SHOP: frozenset[str] = frozenset({"phase1", "phase2"})
#: Those that run the shop's container images.
WITH_IMAGES: frozenset[str] = frozenset({"phase2"})
