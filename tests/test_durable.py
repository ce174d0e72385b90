"""What is replaced is whole, seen by nobody who may not, and on the disk before it has its name."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision.system import Ledger
from tests.plans import shop
from underlay import durable
from underlay.hosts.namespace.state import Store
from underlay.hosts.vagrant import handover


@dataclass(frozen=True, slots=True)
class Synced:
    """A file or directory at the moment when it was synced."""

    path: str
    size: int
    mode: int


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Synced]:
    """What was synced, in order."""
    seen: list[Synced] = []

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        seen.append(Synced(path, status.st_size, stat.S_IMODE(status.st_mode)))

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_contents_are_synced_before_they_have_their_name_and_the_name_after(
    tmp_path: Path, synced: list[Synced]
) -> None:
    path = tmp_path / "file"
    durable.replace(path, "ä", mode=0o640)
    assert synced[0] == Synced(str(tmp_path / ".file.new"), 2, 0o640)
    assert [each.path for each in synced[1:]] == [str(tmp_path)]
    assert path.read_text(encoding="utf-8") == "ä"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_names_may_be_kept_together_later(tmp_path: Path, synced: list[Synced]) -> None:
    durable.replace(tmp_path / "file", b"text", keep_name=False)
    assert [each.path for each in synced] == [str(tmp_path / ".file.new")]


def test_a_file_that_must_stay_the_one_it_is_stays_it(tmp_path: Path, synced: list[Synced]) -> None:
    path = tmp_path / "file"
    path.write_text("a longer text")
    with path.open() as reader:
        durable.overwrite(path, "text")
        assert reader.read() == "text"
    assert [(each.path, each.size) for each in synced] == [(str(path), 4)]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o644])
def test_nobody_reads_more_than_the_mode_allows(tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    chmod = os.fchmod

    def fchmod(descriptor: int, bits: int) -> None:
        status = os.fstat(descriptor)
        assert status.st_size == 0, "there is something to read already"
        modes.append(stat.S_IMODE(status.st_mode))
        chmod(descriptor, bits)

    monkeypatch.setattr(os, "fchmod", fchmod)
    previous = os.umask(0)
    try:
        durable.replace(tmp_path / "file", "secret", mode=mode)
    finally:
        os.umask(previous)
    assert modes == [0o600]
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_whoever_holds_a_killed_runs_draft_open_does_not_see_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.draft(path).write_text("half")
    durable.draft(path).chmod(0o666)
    with durable.draft(path).open() as reader:
        durable.replace(path, "secret", mode=0o600)
        assert reader.read() == "half"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_in_the_drafts_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    durable.draft(tmp_path / "file").symlink_to(tmp_path / "other")
    durable.replace(tmp_path / "file", "text")
    assert (tmp_path / "other").read_text() == "other"
    assert not (tmp_path / "file").is_symlink()


def test_a_file_goes_with_its_draft(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    durable.draft(path).touch()
    durable.remove(path)
    durable.remove(path)
    assert list(tmp_path.iterdir()) == []


def _ledger(directory: Path) -> Path:
    ledger = Ledger(directory / "phase1.ledger")
    ledger.hold("sysctl a", "1", "phase1")
    return ledger.path


def _lab(directory: Path) -> Path:
    Store(directory).make_secret()
    return directory / "secret"


def _handed_over(directory: Path) -> Path:
    handover.prepare(directory, directory / "over", shop.plan())
    return directory / "secret"


@pytest.mark.parametrize("write", [_ledger, _lab, _handed_over])
def test_what_cannot_be_made_again_outlives_a_power_cut(
    tmp_path: Path, synced: list[Synced], write: Callable[[Path], Path]
) -> None:
    path = write(tmp_path)
    paths = [each.path for each in synced]
    assert str(durable.draft(path)) in paths
    assert str(tmp_path) in paths[paths.index(str(durable.draft(path))) :]


def test_a_ledger_without_entries_leaves_no_draft(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "phase1.ledger")
    ledger.hold("sysctl a", "1", "phase1")
    durable.draft(ledger.path).touch()
    ledger.let_go("sysctl a", "phase1", lambda _: None)
    assert list(tmp_path.iterdir()) == []
