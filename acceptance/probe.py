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
import selectors
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

#: Seconds between two looks at the counter while an answer is awaited.
_STEP = 0.01
_ETH_P_ALL = 3  # linux/if_ether.h
_ECHO_REPLY, _ECHO_REQUEST = 0, 8  # RFC 792


class Attempt(TypedDict):
    """One attempt: ``kind`` is tcp, udp, icmp or http; ``payload`` is sent as it is (hexadecimal digits)."""

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


class Listener(TypedDict):
    """Where to listen: ``protocol`` is tcp, udp or dns-packets (all packets of port 53 on the link ``address``)."""

    protocol: str
    namespace: str | None
    address: str


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
    make = {"tcp": _tcp, "http": _http, "udp": _udp, "icmp": _icmp}[item["kind"]]
    try:
        make(item, found, timeout, lambda: bool(counter) and counter.read() > before)
    except ConnectionRefusedError as error:
        found["outcome"], found["error"] = "refused", _name(error)
    except TimeoutError:
        found["outcome"], found["error"] = "timeout", "ETIMEDOUT"
    except (OSError, _NotHttp) as error:
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
        found["local"] = _text(link.getsockname())
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
        found["local"] = _text(link.getsockname())
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
        found["local"] = _text(link.getsockname())
        if item["kind"] == "http":
            link.settimeout(timeout * 10)  # the answer may take longer than the connection
        yield link


def _socket(namespace: str | None, kind: int, protocol: int = 0) -> socket.socket:
    with inside(namespace):
        return socket.socket(socket.AF_INET, kind, protocol)


def listen(listeners: list[Listener], lifetime: float) -> dict[str, object]:
    """Listen in a process of its own, which ends when it is collected, or after ``lifetime`` seconds."""
    sockets = [_listening(item) for item in listeners]
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.bind("")  # an abstract name that the kernel chooses (unix(7))
    control.listen()
    name = control.getsockname()
    answer: dict[str, object] = {
        "control": name.hex(),
        "ports": [0 if item.family == socket.AF_PACKET else item.getsockname()[1] for item in sockets],
    }
    if os.fork():
        return answer
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    _serve(sockets, control, lifetime)
    os._exit(0)


def _listening(item: Listener) -> socket.socket:
    with inside(item["namespace"]):
        if item["protocol"] == "dns-packets":
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            tap.bind((item["address"], _ETH_P_ALL))
            return tap
        kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[item["protocol"]]
        server = socket.socket(socket.AF_INET, kind)
        server.bind((item["address"], 0))
        if kind == socket.SOCK_STREAM:
            server.listen(64)
        return server


def _serve(sockets: list[socket.socket], control: socket.socket, lifetime: float) -> None:
    deadline = time.monotonic() + lifetime
    seen: list[list[str]] = [[] for _ in sockets]
    waiting = selectors.DefaultSelector()
    for number, item in enumerate([*sockets, control]):
        item.setblocking(False)
        waiting.register(item, selectors.EVENT_READ, number)
    while (left := deadline - time.monotonic()) > 0:
        ready = {key.data for key, _ in waiting.select(left)}
        for number in ready - {len(sockets)}:
            peer = _meet(sockets[number])
            if peer:
                seen[number].append(peer)
        if ready == {len(sockets)}:  # asked for, and nothing is waiting any more
            with control.accept()[0] as asker:
                asker.sendall(json.dumps(seen).encode())
            return


def _meet(item: socket.socket) -> str:
    """Take one connection, datagram or packet; tell the peer what address it comes from."""
    if item.family == socket.AF_PACKET:
        return _dns_packet(item.recv(256))
    if item.type == socket.SOCK_STREAM:
        link, peer = item.accept()
        with link:
            link.sendall(_text(peer).encode())
        return _text(peer)
    _, peer = item.recvfrom(4096)
    item.sendto(_text(peer).encode(), peer)
    return _text(peer)


def _dns_packet(data: bytes) -> str:
    if len(data) < 24 or data[0] >> 4 != 4 or data[9] not in {socket.IPPROTO_TCP, socket.IPPROTO_UDP}:
        return ""
    source, target = struct.unpack_from("!HH", data, (data[0] & 15) * 4)
    here, there = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20])
    return f"{here}:{source} to {there}:{target}" if 53 in {source, target} else ""


def collect(control: str) -> list[list[str]]:
    """Return what each listener saw, and end them."""
    text = ""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        try:
            link.connect(bytes.fromhex(control))
            with link.makefile() as answer:
                text = answer.read()
        except (ConnectionRefusedError, ConnectionResetError):
            pass
    if not text:
        raise SystemExit("the listener has ended by itself: what was tried meanwhile outlived it")
    found: list[list[str]] = json.loads(text)
    return found


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


def _text(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


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
                        late.append(f"{item['kind']} from {item['namespace']} to {item['address']}:{item['port']}")
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
