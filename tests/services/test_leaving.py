"""A listening socket that takes nobody else, and loses nobody who is there."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack

import pytest

from services.common.leaving import drop_new

SHORT_S = 0.2


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_who_is_connected_is_accepted_and_heard_and_who_comes_then_is_not(
    family: socket.AddressFamily, address: str
) -> None:
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server((address, 0), family=family))
        except OSError as error:
            pytest.skip(f"this machine has no {address}: {error}")
        place = listener.getsockname()[:2]
        early = [stack.enter_context(socket.create_connection(place)) for _ in range(3)]
        drop_new(listener)
        late = stack.enter_context(socket.socket(family))
        late.setblocking(False)
        late.connect_ex(place)
        for client in early:
            client.sendall(b"order")
            served = stack.enter_context(listener.accept()[0])
            assert served.recv(5) == b"order"
        listener.setblocking(False)
        assert select.select([listener], [late], [], SHORT_S) == ([], [], []), "nobody else is connected"
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            stack.enter_context(socket.create_connection(place))
