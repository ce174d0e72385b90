"""The marks that say "this is ours". Only what carries one is ever changed or removed.

A link carries its mark from the moment the kernel makes it (its group), a route in its protocol number, a chain in its
name, a jump in its comment, a file in its first lines. A namespace is ours if its loopback link is in our group.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """The marks of one phase.

    ``group`` is a link group (``ip link show group N``), ``protocol`` a routing protocol number free for local use
    (rtnetlink(7): values above RTPROT_STATIC are not interpreted by the kernel), ``chain`` a prefix of iptables chain
    names, ``comment`` an iptables comment, ``text`` a line in every file.
    """

    phase: str
    number: int

    @property
    def group(self) -> int:
        """Link group; 0 is the kernel's default, so any other number is free."""
        return 8100 + self.number

    @property
    def protocol(self) -> int:
        """Route protocol; 200 to 209 are unassigned in iproute2's rt_protos."""
        return 200 + self.number

    @property
    def chain(self) -> str:
        """Prefix of the names of our iptables chains."""
        return f"{self.phase.upper()}-"

    @property
    def comment(self) -> str:
        """Comment on the jumps from the kernel's own chains into ours."""
        return f"underlay {self.phase}"

    @property
    def text(self) -> str:
        """The words that a file of ours has in its first lines."""
        return f"Made by Underlay, {self.phase}."


PHASE1 = Mark("phase1", 1)
