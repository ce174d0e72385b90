"""What listens in the network of each replica: its service alone, at its own address and port."""

from __future__ import annotations

from acceptance.modules import LabHost
from acceptance.suite.stage import Seat


def test_nothing_but_the_service_listens_in_its_namespace(space: LabHost, seat: Seat) -> None:
    every = space.socket.get_listening_sockets()
    seen = sorted(item for item in every if not item.startswith("unix:"))
    wanted = [f"tcp://{seat.address}:{seat.service.port}"]
    assert seen == wanted, f"{space.name}: expected: {wanted}; seen: {seen}"
