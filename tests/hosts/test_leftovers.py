from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from underlay.hosts.leftovers import MachineState, diff, machine_snapshot, mount_points, without_counters
from underlay.mountinfo import parse

EMPTY = MachineState(**{field.name: {} for field in fields(MachineState)})


def test_equal_states_do_not_differ() -> None:
    assert diff(EMPTY, EMPTY) == []


def test_what_is_new_gone_or_changed_is_named_with_its_kind() -> None:
    before = replace(EMPTY, links={"eth0": "", "old0": ""}, sysctls={"net.ipv4.ip_forward": "0"})
    after = replace(EMPTY, links={"eth0": "", "new0": ""}, sysctls={"net.ipv4.ip_forward": "1"}, mounts={"/m": "nsfs"})
    assert diff(before, after) == [
        "links: new0 is new",
        "links: old0 is gone",
        "mounts: /m is new (nsfs)",
        "sysctls: net.ipv4.ip_forward changed: 0 -> 1",
    ]


def test_of_changed_rules_the_lines_are_shown() -> None:
    before = replace(EMPTY, rules={"iptables-save": "*filter\n-A INPUT -j ACCEPT\nCOMMIT"})
    after = replace(EMPTY, rules={"iptables-save": "*filter\n-A INPUT -j DROP\nCOMMIT"})
    assert diff(before, after) == ["rules: iptables-save changed: - -A INPUT -j ACCEPT; + -A INPUT -j DROP"]


def test_counters_and_times_are_no_rules() -> None:
    first = "# Generated on Monday\n:INPUT ACCEPT [1:52]\n[3:4] -A INPUT -j ACCEPT\ncounter packets 1 bytes 2 drop"
    second = "# Generated on Friday\n:INPUT ACCEPT [9:99]\n[5:6] -A INPUT -j ACCEPT\ncounter packets 7 bytes 8 drop"
    assert without_counters(first) == without_counters(second)
    assert "-A INPUT -j ACCEPT" in without_counters(first)


def test_a_path_that_is_mounted_twice_differs_from_once() -> None:
    once = b"80 27 0:4 net:[1] /run/a\\040b rw shared:9 - nsfs nsfs rw\n"
    assert mount_points(parse(once)) == {"/run/a b": "nsfs"}
    assert mount_points(parse(once * 2)) == {"/run/a b": "nsfs+nsfs"}


def test_this_machine_can_be_looked_at() -> None:
    state = machine_snapshot()
    assert "lo" in state.links
    assert "/" in state.mounts
    assert state.namespaces
    assert "sys.net.ipv4.ip_forward" not in state.sysctls
    assert "net.ipv4.ip_forward" in state.sysctls


def test_a_tool_that_is_installed_meanwhile_is_no_rule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "iptables-save"
    monkeypatch.setenv("PATH", str(tmp_path))
    before = machine_snapshot().rules
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    assert machine_snapshot().rules == before
    tool.write_text("#!/bin/sh\necho '-A INPUT -j DROP'\n")
    assert machine_snapshot().rules != before
