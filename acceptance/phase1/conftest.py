"""What Phase 1 alone measures."""

from __future__ import annotations

import pytest

from acceptance.conftest import LastSeen
from acceptance.phase1.beside import Story, tell
from acceptance.suite.stage import Stage


@pytest.fixture(scope="session")
def story(stage: Stage, last_seen: LastSeen) -> Story:
    """Bring a second phase beside phase 1, on the first host with services, and tell what came of it."""
    name = next(item.name for item in stage.plan.hosts if stage.plan.services_on(item.name))
    return tell(stage, stage.lab.hosts[name], last_seen.snapshots[name])
