"""What goes over the shared connection to a virtual machine."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from underlay.hosts import layout
from underlay.hosts.vagrant import ssh

MACHINES = {"host1": "6f1c", "host2": "0a2b"}
VAGRANT = "Host host1\n  HostName 192.168.121.7\n  User vagrant\n"


def test_config_shares_connections_by_a_short_name() -> None:
    text = ssh.config(VAGRANT, machines=MACHINES, sockets=Path("/s"), connect_s=1.5)
    assert "  ControlPath /s/%n\n" in text
    assert "  ControlMaster auto\n" in text
    assert "  ConnectTimeout 2\n" in text
    # The first value of an option counts, so ours must come first.
    assert text.index("Host *") < text.index("Host host1")


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client")
def test_openssh_reads_the_config(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(ssh.config(VAGRANT, machines=MACHINES, sockets=Path("/s"), connect_s=2))
    said = subprocess.run(["ssh", "-G", "-F", str(file), "host1"], check=True, capture_output=True, text=True).stdout
    for line in ("hostname 192.168.121.7", "user root", "controlpath /s/host1", "connecttimeout 2"):
        assert line in said.splitlines()


def test_config_knows_whose_it_is() -> None:
    text = ssh.config(VAGRANT, machines=MACHINES, sockets=Path("/s"), connect_s=2)
    assert ssh.describes(text, dict(reversed(MACHINES.items())))
    assert not ssh.describes(text, MACHINES | {"host2": "made anew"})
    assert not ssh.describes("", MACHINES)


def test_config_names_its_machines() -> None:
    text = ssh.config(VAGRANT, machines=MACHINES, sockets=Path("/s"), connect_s=2)
    assert ssh.machines(text) == dict(MACHINES)
    assert ssh.machines("Host host1\n") == {}


@pytest.mark.parametrize("timeout", [None, 3.5])
@pytest.mark.parametrize("namespace", [None, "gateway-1"])
def test_remote_keeps_every_word(timeout: float | None, namespace: str | None) -> None:
    command = ("printf", "%s|", "two words", "$HOME", "it's", "a\nline", "")
    line = ssh.remote(command, namespace=namespace, timeout=timeout)
    words = shlex.split(line.partition("; code=")[0])
    assert tuple(words[-len(command) :]) == command
    assert words[: words.index("-i") + 1] == (["env", "-i"] if timeout else ["exec", "env", "-i"])
    assert f"PATH={layout.PATH}" in words
    assert ("netns" in words) == (namespace is not None)


def run_as_remote_would(command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run the line where the host's directory is not needed."""
    line = ssh.remote(command, timeout=5).replace(f"-C {layout.REPOSITORY}", "-C /")
    return subprocess.run(("bash", "-c", line), check=False, capture_output=True, text=True)


@pytest.mark.parametrize("code", [0, 1, 254])
def test_exit_codes_pass(code: int) -> None:
    done = run_as_remote_would(("sh", "-c", f"echo said >&2; exit {code}"))
    assert (done.returncode, done.stderr) == (code, "said\n")


def test_a_commands_own_255_is_marked() -> None:
    done = run_as_remote_would(("sh", "-c", "echo said >&2; exit 255"))
    assert done.returncode == ssh.BROKEN
    assert ssh.own_255(done.stderr) == "said\n"


def test_sshs_255_is_not() -> None:
    assert ssh.own_255("ssh: connect to host 192.168.121.7 port 22: No route to host\n") is None


def test_terminal_is_asked_for() -> None:
    assert "-tt" in ssh.argv(Path("f"), "host1", "true", tty=True)
    assert "-T" in ssh.argv(Path("f"), "host1", "true")
