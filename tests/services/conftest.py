"""The whole shop, for the tests that ask the real nginx, Redis and PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.services import real


@pytest.fixture(scope="module")
def shop() -> Iterator[real.Shop]:
    """Start it for the tests of one file."""
    missing = real.missing_programs()
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    made = real.make_shop()
    yield made
    made.stop_all()
    shutil.rmtree(made.place)
