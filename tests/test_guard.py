"""A test that reaches for a lab of the machine fails and says so: tried on labs that are none, in a run of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guard import VARIABLES
from underlay.process import Completed, run

ROOT = Path(__file__).parents[1]
#: Test -> what it does wrong, and what is said of it. Names: `real` is the machine's directory, `pid` not the test's.
BAD = {
    "writes": ("(real / 'state/labs/quay/lock').write_text('')", "writes to {real}/state/labs/quay/lock"),
    "makes": ("(real / 'run/quay').mkdir()", "writes to {real}/run/quay"),
    "removes": ("shutil.rmtree(real / 'state/vm-env')", "writes to {real}/state/vm-env"),
    "renames": ("(real / 'mine').rename(real / 'run-vm/record.json')", "writes to {real}/run-vm/record.json"),
    "groups": ("Path('/sys/fs/cgroup/cpu/run-quay').mkdir()", "writes to /sys/fs/cgroup/cpu/run-quay"),
    "kills": ("os.kill(pid, 15)", "sends signal 15 to process {pid}"),
    "kills_for_certain": ("kill(identify(pid), deadline_s=0)", "sends signal 9 to process {pid}"),
    "caught": ("with suppress(BaseException): os.kill(pid, 15)", "sends signal 15 to process {pid}"),
    "enters": ("subprocess.run(['nsenter', f'--target={pid}', 'true'])", "no test has started {pid}"),
    "names": ("subprocess.run(['umount', f'{real}/run/quay/net'])", "which names a place of a lab"),
    "connects": ("socket.socket(socket.AF_UNIX).connect(f'/proc/{pid}/cwd/s')", "connects to /proc/{pid}/cwd/s"),
    "forgets": (
        "monkeypatch.delenv('UNDERLAY_STATE_DIR'); subprocess.run(['./lab'])",
        "$UNDERLAY_STATE_DIR leads it to",
    ),
    "replaces": (
        "subprocess.run([sys.executable, '-m', 'underlay'], env={'UNDERLAY_STATE_DIR': '/mine'})",
        "$UNDERLAY_RUN_DIR leads it to",
    ),
    "finds": (
        "monkeypatch.setenv('UNDERLAY_STATE_DIR', f'{real}/state'); store('quay').make_secret()",
        "writes to {real}/state/labs/quay",
    ),
}
#: What tests may do.
GOOD = {
    "looks": "assert (real / 'state/labs/quay/state.json').read_text() == ''; os.kill(pid, 0)",
    "ends_its_own": "with subprocess.Popen(['sleep', '60']) as own: assert kill(identify(own.pid), deadline_s=20)",
    "starts_its_own": "assert main(['down', 'quay']) == 0",
}
_HEAD = """\
import os, shutil, socket, subprocess, sys
from contextlib import suppress
from pathlib import Path
from underlay.cli.main import main
from underlay.hosts.namespace.processes import identify, kill
from underlay.hosts.namespace.state import store

real, pid = Path({real!r}), {pid}
"""


@pytest.fixture(scope="module")
def another() -> Iterator[int]:
    """A process that the other run has not started."""
    with subprocess.Popen(("sleep", "600")) as process:
        yield process.pid
        process.kill()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the other run takes for the labs of its machine."""
    directory = tmp_path_factory.mktemp("machine")
    for name in ("state/labs/quay", "state/vm-env", "run", "run-vm"):
        (directory / name).mkdir(parents=True)
    (directory / "state/labs/quay/state.json").touch()
    return directory


@pytest.fixture(scope="module")
def reported(real: Path, another: int, tmp_path_factory: pytest.TempPathFactory) -> Completed:
    """What pytest says of all of them."""
    directory = tmp_path_factory.mktemp("suite")
    bodies = {name: body for name, (body, _) in BAD.items()} | GOOD
    tests = [f"def test_{name}(monkeypatch):\n    {body}\n" for name, body in bodies.items()]
    (directory / "test_bad.py").write_text("\n".join([_HEAD.format(real=str(real), pid=another), *tests]))
    places = dict(zip(VARIABLES, (real / "state", real / "run", real / "dot"), strict=True))
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    told = {"PYTHONPATH": path, "COLUMNS": "500", **{name: str(path) for name, path in places.items()}}
    words = ("-q", "-p", "tests.apart", "-p", "no:cacheprovider", "--rootdir", str(directory), "--tb=line", "-rA")
    argv = (sys.executable, "-m", "pytest", *words, f"--basetemp={directory / 'tmp'}", str(directory))
    return run(argv, timeout=60, check=False, env={**os.environ, **told}, cwd=directory)


@pytest.mark.parametrize("name", BAD)
def test_what_reaches_a_lab_fails(name: str, reported: Completed, real: Path, another: int) -> None:
    failed = [line for line in reported.stdout.splitlines() if f"::test_{name} " in f"{line} "]
    assert [line for line in failed if line.startswith(("FAILED", "ERROR"))], reported.stdout
    assert BAD[name][1].format(real=real, pid=another) in "\n".join(failed)


@pytest.mark.parametrize("name", GOOD)
def test_what_does_not_passes(name: str, reported: Completed) -> None:
    lines = [line for line in reported.stdout.splitlines() if line.endswith(f"::test_{name}")]
    assert [line.split()[0] for line in lines] == ["PASSED"], reported.stdout


@pytest.mark.usefixtures("reported")
def test_nothing_of_it_was_done(real: Path, another: int) -> None:
    assert Path(f"/proc/{another}").exists()
    found = sorted(str(path.relative_to(real)) for path in real.rglob("*") if not path.is_dir())
    assert found == ["state/labs/quay/state.json"]
    assert (real / "state/vm-env").is_dir()
