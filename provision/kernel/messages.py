"""pyroute2's classes of rtnetlink messages, and nothing else of pyroute2.

``import pyroute2`` runs its ``__init__``, which loads every protocol that it knows. That takes as long as all else that
a run does, and under software emulation several seconds. The modules of the messages stand by themselves, so they are
imported below a stand-in for the package, which has its path and no contents. It is taken away again: whoever imports
pyroute2 afterwards gets all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

_PACKAGE = "pyroute2"


@contextmanager
def _without_its_init() -> Iterator[None]:
    spec = None if _PACKAGE in sys.modules else find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        yield  # it has been loaded already, or is not there, which the import says better
        return
    stand_in = ModuleType(_PACKAGE)
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules[_PACKAGE] = stand_in
    try:
        yield
    finally:
        del sys.modules[_PACKAGE]


with _without_its_init():
    from pyroute2.netlink import nlmsg
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.ndmsg import ndmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

__all__ = ["ifaddrmsg", "ifinfmsg", "ndmsg", "nlmsg", "rtmsg"]
