"""Makes connection attempts, or listens, where it is run: ``python3 probe.py < request.json > answer.json``.

It runs on the hosts of the lab and outside of them, needs nothing but Python's standard library, and makes as many
attempts in one run as it is asked to, one after the other, so that a rise of the deny counter belongs to one attempt.
Network namespaces are entered with setns(2) just to make a socket, which stays in the namespace it was made in.

The request's ``do`` is one of: ``attempt``, ``listen``, ``collect`` (what a listener saw; it ends), ``resolve``.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from acceptance.counted import Look
from acceptance.inside import inside
from acceptance.listeners import collect, listen, text_of, whole_packets

#: How many times as long as a connection an answer may take: whoever asks others may wait for each of them in turn.
ANSWER = 15
#: Seconds between two looks at the counter while an answer is awaited.
_STEP = 0.01
#: linux/tcp.h: what a connection has agreed on.
_TCP_INFO_BYTES, _TCP_INFO_OPTIONS, _TCPI_OPT_TIMESTAMPS = 8, 5, 1
#: Bytes of the headers of IPv4 and TCP, and of the option that TCP_MAXSEG has taken off already (RFC 7323).
_HEADERS, _TIMESTAMPS = 40, 12
#: How many packets of full size are sent, each way.
_ECHOES = 6
_ECHO_REPLY, _ECHO_REQUEST = 0, 8  # RFC 792


class Attempt(TypedDict):
    """One attempt: ``kind`` is tcp, udp, icmp, http or echo (packets of full size, to a listener that echoes).

    ``payload`` is sent as it is (hexadecimal digits).
    ``namespace`` is a path, or the name of one of ip-netns(8); ``who`` is its name for people.
    """

    kind: str
    namespace: str | None
    address: str
    port: int
    payload: str
    reply: bool
    method: str
    path: str
    headers: dict[str, str]
    body: str
    who: str


class Outcome(TypedDict):
    """What came of an attempt.

    ``outcome``: connected, refused, timeout, unreachable, dropped (the deny counter rose and nothing came back), error,
    or untried (too many timed out before). ``local`` is our own address and port, ``reply`` hexadecimal digits,
    ``denied`` the rise of the counter.
    """

    outcome: str
    error: str
    local: str
    reply: str
    seconds: float
    denied: int
    status: int
    headers: dict[str, str]
    body: str


class Counter:
    """The packets that the rules of one chain have counted; without a chain always 0. ``limit``: seconds of a look."""

    def __init__(self, chain: str | None, limit: float) -> None:
        self._look = None if chain is None else Look(chain, limit)
        self.last = 0

    def __bool__(self) -> bool:
        return self._look is not None

    def read(self) -> int:
        """Return the number of packets; ``last`` keeps it."""
        if self._look is not None:
            self.last = self._look.packets()
        return self.last


def attempt(item: Attempt, timeout: float, counter: Counter, before: int) -> tuple[Outcome, int]:
    """Make one attempt; return what came of it, and the counter after it."""
    found = _nothing("connected")
    started = time.monotonic()
    make = {"tcp": _tcp, "echo": _echo, "http": _http, "udp": _udp, "icmp": _icmp}[item["kind"]]
    try:
        make(item, found, timeout, lambda: bool(counter) and counter.read() > before)
    except ConnectionRefusedError as error:
        found["outcome"], found["error"] = "refused", _name(error)
    except TimeoutError:
        found["outcome"], found["error"] = "timeout", "ETIMEDOUT"
    except (OSError, _Garbled, _NotHttp) as error:
        unreachable = isinstance(error, OSError) and error.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH}
        found["outcome"], found["error"] = "unreachable" if unreachable else "error", _name(error)
    found["seconds"] = time.monotonic() - started
    # What was dropped is one packet, and has just been seen to be counted; all else is looked up.
    after = counter.last if found["outcome"] == "dropped" else counter.read()
    found["denied"] = after - before
    return found, after


def _nothing(outcome: str) -> Outcome:
    return Outcome(outcome=outcome, error="", local="", reply="", seconds=0.0, denied=0, status=0, headers={}, body="")


def _tcp(item: Attempt, found: Outcome, timeout: float, denied: Callable[[], bool]) -> None:
    with _connected(item, found, timeout) as link:
        if item["payload"]:
            link.sendall(bytes.fromhex(item["payload"]))
        if item["reply"]:
            found["reply"] = link.recv(4096).hex()


def _echo(item: Attempt, found: Outcome, timeout: float, denied: Callable[[], bool]) -> None:
    """Send packets of the largest size, one after the other, and have them back; the reply is that size.

    One at a time, since several are handed on as one larger packet, which need not fit anywhere until it is sent
    (Documentation/networking/segmentation-offloads.rst). None may be fragmented (IP_MTU_DISCOVER, ip(7)).
    """
    with _socket(item["namespace"], socket.SOCK_STREAM) as link:
        link.settimeout(timeout)
        whole_packets(link)
        link.connect((item["address"], item["port"]))
        found["local"] = text_of(link.getsockname())
        size = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        for number in range(_ECHOES):
            data = bytes([number]) * size
            link.sendall(data)
            back = b""
            while len(back) < size and (part := link.recv(size - len(back))):
                back += part
            if back != data:
                raise _Garbled(f"of {size} bytes {len(back)} came back")
        options = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        timestamps = _TIMESTAMPS if options[_TCP_INFO_OPTIONS] & _TCPI_OPT_TIMESTAMPS else 0
        # On the way it may have learnt that so large a packet does not fit everywhere.
        size = min(size, link.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
        found["reply"] = str(size + timestamps + _HEADERS).encode().hex()


class _Garbled(Exception):
    """What came back is not what was sent."""


class _NotHttp(Exception):
    """The answer was no HTTP."""


def _http(item: Attempt, found: Outcome, timeout: float, denied: Callable[[], bool]) -> None:
    import http.client  # slow to load, and most runs do without

    with _connected(item, found, timeout) as link:
        client = http.client.HTTPConnection(item["address"], item["port"])
        client.sock = link
        try:
            client.request(item["method"], item["path"], item["body"].encode() or None, item["headers"])
            answer = client.getresponse()
            found["status"] = answer.status
            found["headers"] = {name.lower(): value for name, value in answer.getheaders()}
            found["body"] = answer.read().decode(errors="replace")
        except http.client.HTTPException as error:
            raise _NotHttp(f"{type(error).__name__}: {error}") from error


def _udp(item: Attempt, found: Outcome, timeout: float, denied: Callable[[], bool]) -> None:
    with _socket(item["namespace"], socket.SOCK_DGRAM) as link:
        link.connect((item["address"], item["port"]))
        found["local"] = text_of(link.getsockname())
        link.send(bytes.fromhex(item["payload"]) or b"?")
        reply = _await(link, timeout, denied, lambda data: data)
        if reply is None:
            found["outcome"] = "dropped"
        else:
            found["reply"] = reply.hex()


def _icmp(item: Attempt, found: Outcome, timeout: float, denied: Callable[[], bool]) -> None:
    identity = os.getpid() & 0xFFFF
    head = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, identity, item["port"])
    total = sum(struct.unpack("!4H", head))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    wanted = (_ECHO_REPLY, identity, item["port"])

    def ours(data: bytes) -> bytes | None:
        kind, _, _, number, sequence = struct.unpack_from("!BBHHH", data, (data[0] & 15) * 4)
        return data if (kind, number, sequence) == wanted else None

    with _socket(item["namespace"], socket.SOCK_RAW, socket.IPPROTO_ICMP) as link:
        link.connect((item["address"], 0))
        found["local"] = text_of(link.getsockname())
        link.send(struct.pack("!BBHHH", _ECHO_REQUEST, 0, checksum, identity, item["port"]))
        if _await(link, timeout, denied, ours) is None:
            found["outcome"] = "dropped"


def _await(
    link: socket.socket, timeout: float, denied: Callable[[], bool], wanted: Callable[[bytes], bytes | None]
) -> bytes | None:
    """Return the wanted answer, or None as soon as the deny counter has risen; TimeoutError if neither comes."""
    deadline = time.monotonic() + timeout
    link.settimeout(_STEP)
    while True:
        late = time.monotonic() >= deadline
        try:
            data = wanted(link.recv(65536))
        except TimeoutError:
            if denied():
                return None
            if late:
                raise
            continue
        if data is not None:
            return data


@contextmanager
def _connected(item: Attempt, found: Outcome, timeout: float) -> Iterator[socket.socket]:
    with _socket(item["namespace"], socket.SOCK_STREAM) as link:
        link.settimeout(timeout)
        link.connect((item["address"], item["port"]))
        found["local"] = text_of(link.getsockname())
        if item["kind"] == "http":
            link.settimeout(timeout * ANSWER)
        yield link


def _socket(namespace: str | None, kind: int, protocol: int = 0) -> socket.socket:
    with inside(namespace):
        return socket.socket(socket.AF_INET, kind, protocol)


def resolve(names: list[str]) -> dict[str, dict[str, object]]:
    """Ask the resolver that programs here ask, for IPv4 addresses."""
    answers: dict[str, dict[str, object]] = {}
    for name in names:
        started = time.monotonic()
        addresses: list[str] = []
        error = ""
        try:
            found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
            addresses = sorted({str(entry[4][0]) for entry in found})
        except socket.gaierror as problem:
            error = next((key for key in ("EAI_NONAME", "EAI_AGAIN") if problem.errno == getattr(socket, key)), "other")
        answers[name] = {"addresses": addresses, "error": error, "seconds": time.monotonic() - started}
    return answers


def _name(error: Exception) -> str:
    code = error.errno if isinstance(error, OSError) else None
    return errno.errorcode.get(code, str(error)) if code else str(error) or type(error).__name__


def main() -> None:
    """Read one request, answer it."""
    request = json.load(sys.stdin)
    match request["do"]:
        case "attempt":
            counter = Counter(request["chain"], request["limit"])
            value = counter.read()
            results: list[Outcome] = []
            late: list[str] = []
            for item in request["attempts"]:
                if len(late) >= request["patience"]:
                    outcome = _nothing("untried")  # so much is broken that the rest would only take long
                    outcome["error"] = f"({len(late)} timed out before it, the first of them {late[0]})"
                else:
                    outcome, value = attempt(item, request["timeout"], counter, value)
                    if outcome["outcome"] == "timeout":
                        who = item["who"] or item["namespace"]
                        late.append(f"{item['kind']} from {who} to {item['address']}:{item['port']}")
                results.append(outcome)
            answer: object = results
        case "listen":
            answer = listen(request["listeners"], request["lifetime"])
        case "collect":
            answer = collect(request["control"])
        case "resolve":
            answer = resolve(request["names"])
        case other:
            raise SystemExit(f"no such request: {other}")
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
