"""When a network is really gone.

Standard library only, so that the Python which has Mininet can use it too; that is why it waits by itself.
"""

import socket
import time
from pathlib import Path

_NAMES = Path("/run/netns")
_PAUSE_S = 0.001


def wait_until_gone(deadline_s: float) -> None:
    """Wait until no link but the loopback, and no name of a network namespace, is left where this process is.

    Raises TimeoutError, naming how much is left, after ``deadline_s`` seconds.
    """
    started = time.monotonic()
    while left := _left():
        if time.monotonic() - started > deadline_s:
            raise TimeoutError(f"{left} links and names are still there after {deadline_s:g} s")
        time.sleep(_PAUSE_S)


def _left() -> int:
    names = sum(1 for _ in _NAMES.iterdir()) if _NAMES.is_dir() else 0
    return len(socket.if_nameindex()) - 1 + names
