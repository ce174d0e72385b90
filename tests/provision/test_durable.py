"""What must outlive a power cut is on the disk before it has its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from provision import durable
from provision.system import Ledger


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The files and directories that were synced: their path, and how long they were then."""
    seen: list[tuple[str, int]] = []

    def fsync(descriptor: int) -> None:
        seen.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_contents_are_synced_once_they_are_written(tmp_path: Path, synced: list[tuple[str, int]]) -> None:
    path = tmp_path / "file"
    durable.write(path, "text")
    assert synced == [(str(path), 4)]
    assert path.read_text() == "text"


def test_a_ledger_is_synced_before_it_has_its_name_and_its_name_after(
    tmp_path: Path, synced: list[tuple[str, int]]
) -> None:
    Ledger(tmp_path / "phase1.ledger").hold("sysctl a", "1", "phase1")
    assert [path for path, _ in synced] == [str(tmp_path / "phase1.new"), str(tmp_path)]
    assert synced[0][1] > 0
