"""Frames with a VLAN tag, which no rule of iptables sees: dropped at the ports of our bridges (nft(8), family bridge).

A bridge shows rules of iptables only frames without a tag (bridge-nf-filter-vlan-tagged is 0, and covers one tag, not
two: br_netfilter, net/bridge/br_netfilter_hooks.c). A tag of VLAN 0 only says a priority (IEEE 802.1Q), and whoever
receives it takes the packet for its own. So a packet that is denied would arrive with a tag before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from provision.marks import Mark
from provision.resource import Feed, Found, Resource, Step
from provision.system import System

#: Before rules of iptables are shown a frame (NF_BR_PRI_BRNF is 0, linux/netfilter_bridge.h).
_PRIORITY = -250
_TAGS = ("8021q", "8021ad")
_IDENTITY = "nftables bridge"


@dataclass(frozen=True, slots=True)
class Untagged(Resource):
    """A table of nftables, the phase's own, that drops frames with a tag which come in by ``ports``."""

    ports: tuple[str, ...]

    @property
    def identity(self) -> str:
        """See Resource."""
        return _IDENTITY

    def observe(self, system: System) -> str | None:
        """See Resource."""
        seen = system.run("nft", "--stateless", "list", "table", *_table(system.mark), check=False)
        if not seen.ok:
            return "is missing"
        return None if _lines(seen.stdout) == _lines(self._text(system.mark)) else "has other rules than planned"

    def apply(self, system: System) -> None:
        """See Resource."""
        system.run("nft", "--file", "-", stdin=self._anew(system.mark))

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (Feed(("nft", "--file", "-"), self._anew(mark)),)

    def _anew(self, mark: Mark) -> str:
        """Return what makes the table in one transaction, whatever it holds: it must be there to be deleted."""
        name = " ".join(_table(mark))
        return f"table {name}\ndelete table {name}\n{self._text(mark)}"

    def _text(self, mark: Mark) -> str:
        rules = [f'\t\tiifname "{port}" ether type {tag} drop' for port in self.ports for tag in _TAGS]
        return "\n".join(
            (
                f"table {' '.join(_table(mark))} {{",
                f'\tcomment "{mark.text}"',
                "",
                "\tchain tagged {",
                f"\t\ttype filter hook prerouting priority {_PRIORITY}; policy accept;",
                *rules,
                "\t}",
                "}",
                "",
            )
        )


def discover(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find the phase's table."""
    if system.run("nft", "list", "table", *_table(system.mark), check=False).ok:
        yield Found(_IDENTITY, _remove)


def _remove(system: System) -> None:
    system.run("nft", "delete", "table", *_table(system.mark))


def _table(mark: Mark) -> tuple[str, str]:
    return "bridge", f"underlay-{mark.phase}"


def _lines(text: str) -> list[str]:
    return [words for line in text.splitlines() if (words := " ".join(line.split()))]
