from __future__ import annotations

import json
import os
import sys
from ipaddress import IPv4Address
from pathlib import Path

from underlay.hosts import layout
from underlay.process import run

HOSTS = [("host1", IPv4Address("192.168.56.11")), ("host2", IPv4Address("192.168.56.12"))]


def test_every_host_is_in_the_hosts_file_by_both_names() -> None:
    assert layout.hosts_file("host2", "shop.internal", HOSTS) == (
        "# host2, written when it starts; the addresses come from the plan.\n"
        "127.0.0.1 localhost\n"
        "::1 localhost ip6-localhost ip6-loopback\n"
        "192.168.56.11 host1.shop.internal host1\n"
        "192.168.56.12 host2.shop.internal host2\n"
    )


def test_the_resolver_file_names_no_server() -> None:
    assert all(line.startswith("#") for line in layout.resolver_file().splitlines())


def test_a_host_can_read_who_it_is() -> None:
    assert json.loads(layout.identity_file("shop", "host1")) == {"host": "host1", "lab": "shop", "kind": "namespace"}


def test_our_own_programs_come_first_in_the_path() -> None:
    assert layout.environment()["PATH"].split(":")[0] == "/opt/underlay/bin"


def test_python_on_a_host_takes_nothing_from_where_a_command_stands(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("print('planted')")
    environment = {**layout.environment(), "PATH": os.environ["PATH"]}
    words = (sys.executable, "-m", "json.tool", "--help")
    assert "planted" not in run(words, timeout=20, env=environment, cwd=tmp_path).stdout
    assert layout.environment("xterm")["TERM"] == "xterm"
