"""Where the command finds its plan if none is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.apart import Places
from tests.plans import shop
from underlay.cli import context


@pytest.fixture(autouse=True)
def default(apart: Places, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plan that is taken if none is named: the tests' own."""
    apart.repository.mkdir()
    monkeypatch.setattr(context, "REPOSITORY", apart.repository)
    path = apart.repository / "topology.yaml"
    path.write_text(shop.text())
    return path
