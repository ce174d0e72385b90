"""What Docker says, read without a daemon: a server on a socket answers as one does."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.docker import Docker, Said
from underlay.errors import NotReady
from underlay.topology import Timeouts

_TIMES = Timeouts(connect=1, command=5, ready=6, cache=1)
_CONTAINER = {"Id": "abc", "Name": "/redis-1", "State": {"Running": True, "Pid": 7}, "HostConfig": {"CapDrop": None}}


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.removeprefix("/v1.44")
        known: dict[str, object] = {
            "/_ping": "OK",
            "/containers/json?all=true": [{"Id": "abc"}, {"Id": "gone"}],
            "/containers/abc/json": _CONTAINER,
            "/volumes": {"Volumes": None},
        }
        broken = path == "/networks"
        self.send_response(500 if broken else 200 if path in known else 404)
        self.end_headers()
        self.wfile.write(json.dumps("no" if broken else known.get(path)).encode())

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return ""


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Docker]:
    path = tmp_path / "socket"
    with socketserver.UnixStreamServer(str(path), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Docker("host1", _TIMES, path)
        server.shutdown()
        thread.join()


def test_containers_that_went_while_they_were_asked_for_are_left_out(docker: Docker) -> None:
    (found,) = docker.containers()
    assert found.text("Name") == "/redis-1"
    assert found.number("State", "Pid") == 7
    assert found.text("State", "Running") == "True"
    assert found.texts("HostConfig", "CapDrop") == ()
    assert found.text("State", "Health", "Status") == ""


def test_nothing_is_an_empty_list(docker: Docker) -> None:
    assert docker.answers()
    assert docker.volumes() == ()


def test_refusal_of_the_daemon_is_told(docker: Docker) -> None:
    with pytest.raises(NotReady, match="500"):
        docker.networks()


def test_no_daemon_is_told(tmp_path: Path) -> None:
    docker = Docker("host1", _TIMES, tmp_path / "nothing")
    assert not docker.answers()
    with pytest.raises(NotReady, match="does not answer"):
        docker.networks()
    with pytest.raises(NotReady, match="an answer of Docker"):
        docker.wait(0.1)


def test_parts_of_what_is_no_list_are_none() -> None:
    assert list(Said("text").parts()) == []
    assert list(Said({"a": 1}).items("a")) == []
