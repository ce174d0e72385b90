"""Records the frames of a link while a program runs: ``python3 -m acceptance.capture < request.json > answer.json``.

It runs on the hosts of the lab and needs nothing but Python's standard library. The socket is there before the program
starts, and what it holds when the program has ended is what passed meanwhile: nothing has to be waited for.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time

_ETH_P_ALL = 3  # linux/if_ether.h
_SO_RCVBUFFORCE = 33  # linux asm-generic/socket.h
_SOL_PACKET, _PACKET_STATISTICS = 263, 6  # linux/if_packet.h
#: Bytes that the kernel keeps for us meanwhile, and of one frame, which the kernel may hand on larger than it was sent.
_ROOM, _FRAME = 32 * 1024 * 1024, 65536 + 64
#: Seconds in which nothing may come before the end is believed: answers may still be on their way.
_QUIET = 0.2


def main() -> None:
    """Read a request: ``link`` of the host's own, ``argv`` and ``stdin`` of the program, its ``seconds``; answer it."""
    request = json.load(sys.stdin)
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    link.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
    link.bind((request["link"], _ETH_P_ALL))
    done = subprocess.run(
        request["argv"], check=True, capture_output=True, text=True, input=request["stdin"], timeout=request["seconds"]
    )
    frames: list[str] = []
    link.settimeout(_QUIET)
    deadline = time.monotonic() + request["seconds"]
    while time.monotonic() < deadline:
        try:
            frames.append(link.recv(_FRAME).hex())
        except TimeoutError:
            break
    _, lost = struct.unpack("II", link.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    if lost:
        sys.exit(f"{lost} frames of {request['link']} did not fit: what is not recorded may have passed")
    json.dump({"frames": frames, "output": done.stdout}, sys.stdout)


if __name__ == "__main__":
    main()
