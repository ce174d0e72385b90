"""The links of a network, with what testinfra's ``host.interface`` does not tell: kind, bridge, state and MTU."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from acceptance.kernel import Link, link_of

if TYPE_CHECKING:
    from acceptance.modules import LabHost


class Links(Mapping[str, Link]):
    """All links by name, as ip-link(8) shows them, asked when they are first looked at.

    >>> host.links["u-edge-1"].master
    'u-frontend'
    >>> host.links.of_kind("bridge")
    ('u-frontend', 'u-backend', 'u-data')
    """

    def __init__(self, host: LabHost) -> None:
        self._host = host
        self._known: Mapping[str, Link] | None = None

    def __getitem__(self, name: str) -> Link:
        return self._links[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """Return the names of the links of a kind (``bridge``, ``veth``, ``vxlan``)."""
        return tuple(name for name, link in self.items() if link.kind == kind)

    @property
    def _links(self) -> Mapping[str, Link]:
        if self._known is None:
            shown = json.loads(self._host.check_output("ip -details -json address show"))
            self._known = {item["ifname"]: link_of(item) for item in shown}
        return self._known
