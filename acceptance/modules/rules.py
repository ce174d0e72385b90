"""Chains of iptables, and what their rules have counted; testinfra's ``host.iptables`` shows rules without counters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from testinfra.modules.base import Module

if TYPE_CHECKING:
    from acceptance.modules import LabHost

_COUNTED = re.compile(r"\[(\d+):(\d+)\] -A ")


class Rules(Module):  # type: ignore[misc] # testinfra is not marked as typed
    """The rules of one chain, as iptables-save(8) shows them; asked anew each time.

    >>> host.rules("PHASE1-DENY").packets
    42
    >>> host.rules("POSTROUTING", "nat").lines
    ('-A POSTROUTING -m comment --comment "underlay phase1" -j PHASE1-LEAVE',)
    """

    _host: LabHost

    def __init__(self, chain: str, table: str = "filter") -> None:
        self.chain = chain
        self.table = table

    @property
    def exists(self) -> bool:
        """Whether there is such a chain."""
        return any(line.startswith(f":{self.chain} ") for line in self._saved)

    @property
    def lines(self) -> tuple[str, ...]:
        """Its rules, in order."""
        return tuple(re.sub(r"^\[\d+:\d+\] ", "", line) for line in self._rules)

    @property
    def packets(self) -> int:
        """How many packets its rules have counted, all together."""
        return sum(int(found[1]) for line in self._rules if (found := _COUNTED.match(line)))

    @property
    def policy(self) -> str:
        """What becomes of packets that no rule decides: ``ACCEPT``, ``DROP``; ``-`` for a chain of somebody's own."""
        return self._head.split()[1]

    @property
    def passed_over(self) -> int:
        """How many packets no rule has decided, so that the policy did."""
        return int(self._head.split()[2].strip("[]").partition(":")[0])

    @property
    def _head(self) -> str:
        for line in self._saved:
            if line.startswith(f":{self.chain} "):
                return line
        raise LookupError(f"{self._host.name}: there is no chain {self.chain} in {self.table}")

    @property
    def _rules(self) -> list[str]:
        return [line for line in self._saved if f"] -A {self.chain} " in f"{line} "]

    @property
    def _saved(self) -> list[str]:
        return str(self._host.check_output("iptables-save --counters --table %s", self.table)).splitlines()
