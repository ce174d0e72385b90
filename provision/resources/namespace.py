"""Network namespaces with names, as `ip netns` makes them (ip-netns(8), network_namespaces(7))."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from provision.kernel import netlink, syscalls
from provision.kernel.network import LOOPBACK, NETNS_DIR, View, is_namespace
from provision.marks import Mark
from provision.resource import Command, Found, Resource, Step
from provision.system import NotOurs, System
from underlay import libc

_UP = 0x1


@dataclass(frozen=True, slots=True)
class Namespace(Resource):
    """A network namespace whose loopback is up.

    It gets its name only after its loopback carries our mark: a namespace that can be seen is always marked, at
    whatever moment the maker dies.
    """

    name: str

    @property
    def identity(self) -> str:
        """See Resource."""
        return f"namespace {self.name}"

    @property
    def batched(self) -> bool:
        """See Resource. Making one does not wait for anything that is queued."""
        return True

    def observe(self, system: System) -> str | None:
        """See Resource."""
        view = system.network.view(self.name)
        if view is None:
            return "is missing"
        if view.loopback_group != system.mark.group:
            raise NotOurs(system.host, f"a network namespace {self.name}", ("ip", "netns", "delete", self.name))
        return None if view.links["lo"].up else "its loopback is down"

    def apply(self, system: System) -> None:
        """See Resource."""
        wake = _wake(system.mark.group)
        path = NETNS_DIR / self.name
        if is_namespace(path):
            system.network.queue(self.name, wake)
            return
        system.network.share_names()
        path.touch(mode=0o444)
        with syscalls.inside_new():
            view = View(system.network.where(self.name), None)
            try:
                view.send([wake])
                libc.mount(str(syscalls.OWN_NET), str(path), flags=libc.MS_BIND)
            except BaseException:
                view.close()
                raise
        system.network.made(self.name, view)

    def say(self, mark: Mark) -> Sequence[Step]:
        """See Resource."""
        return (
            Command(("ip", "netns", "add", self.name)),
            Command(("ip", "-n", self.name, "link", "set", "lo", "group", str(mark.group), "up")),
        )


@cache
def _wake(group: int) -> netlink.Request:
    """Return the request that marks a loopback and brings it up: the same in every namespace, so encoded once."""
    return netlink.request(
        "bring the loopback up",
        netlink.NEWLINK,
        0,
        {"index": LOOPBACK, "flags": _UP, "change": _UP},
        [("IFLA_GROUP", group)],
    )


def discover(system: System, wanted: frozenset[str]) -> Iterator[Found]:
    """Find the namespaces that carry our mark."""
    for name in system.network.namespaces():
        view = system.network.view(name)
        if view is not None and view.loopback_group == system.mark.group:
            yield Found(f"namespace {name}", _remover(name))


def _remover(name: str) -> Callable[[System], None]:
    def remove(system: System) -> None:
        system.network.forget(name)
        libc.detach(str(NETNS_DIR / name))
        (NETNS_DIR / name).unlink(missing_ok=True)

    return remove
