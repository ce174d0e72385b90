"""The marks that say "this is ours". Only what carries one is ever changed or removed.

A link carries its mark from the moment the kernel makes it (its group), a route in its protocol number, a chain in its
name, a jump in its comment, a user in the comment field of passwd(5), a file in its first lines or by its directory. A
namespace is ours if its loopback link is in our group.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

#: How the comment of every phase's mark begins.
COMMENT = "underlay "


@dataclass(frozen=True, slots=True)
class Places:
    """Where the lab keeps things on a host, all phases together: what it was told, what it must remember, sockets."""

    settings: Path = Path("/etc/underlay")
    state: Path = Path("/var/lib/underlay")
    run: Path = Path("/run/underlay")
    shop: Path = Path("/srv/underlay/shop")
    """The shop's images, as the workstation built them: `registry/` and `manifest.json`, read-only."""

    @property
    def secret(self) -> Path:
        """The lab's secret, from which passwords are derived."""
        return self.settings / "secret"

    @property
    def plan(self) -> Path:
        """The plan that the host was told."""
        return self.settings / "topology.yaml"

    @property
    def identity(self) -> Path:
        """What the host was told of itself."""
        return self.settings / "host.json"

    @property
    def ledger(self) -> Path:
        """What the host's own settings were before."""
        return self.state / "ledger.json"


@dataclass(frozen=True, slots=True)
class Mark:
    """The marks of one phase, and the directories that are the phase's alone: all that lies in them is its own.

    ``group`` is a link group (``ip link show group N``), ``protocol`` a routing protocol number free for local use
    (rtnetlink(7): values above RTPROT_STATIC are not interpreted by the kernel), ``chain`` a prefix of iptables chain
    names, ``comment`` an iptables comment, ``text`` a line in every file.
    """

    phase: str
    number: int
    places: Places = field(default_factory=Places)

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
        """Comment on the jumps from other chains into ours, and on our users."""
        return f"{COMMENT}{self.phase}"

    @property
    def text(self) -> str:
        """The words that a file of ours has in its first lines."""
        return f"Made by Underlay, {self.phase}."

    @property
    def label(self) -> tuple[str, str]:
        """Key and value of the label that everything of ours has in Docker."""
        return "underlay.phase", self.phase

    @property
    def settings(self) -> Path:
        """Where the phase keeps what its programs read."""
        return self.places.settings / self.phase

    @property
    def run(self) -> Path:
        """Where its programs keep sockets and the like; the host empties it when it boots."""
        return self.places.run / self.phase

    @property
    def state(self) -> Path:
        """Where its programs keep data."""
        return self.places.state / self.phase

    @property
    def switch(self) -> Path:
        """The file that says that the phase is on, so that it comes back after a reboot."""
        return self.places.state / "on" / self.phase
