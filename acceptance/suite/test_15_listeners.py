"""What listens in the network of each replica: its service alone, at its own address and port."""

from __future__ import annotations

from acceptance.modules import LabHost
from acceptance.suite.stage import Seat, Stage


def test_nothing_but_the_service_listens_in_its_namespace(space: LabHost, seat: Seat, stage: Stage) -> None:
    """Nor does a name server, but for one that the phase has in each namespace, for nobody outside of it."""
    every = space.socket.get_listening_sockets()
    resolver = f"://{stage.resolver(seat)}:"
    seen = sorted(item for item in every if not item.startswith("unix:") and resolver not in item)
    wanted = [f"tcp://{seat.address}:{seat.service.port}"]
    assert seen == wanted, f"{space.name}: expected: {wanted}; seen: {seen}"
