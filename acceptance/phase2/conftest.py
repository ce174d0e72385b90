"""What Phase 2 alone measures."""

from __future__ import annotations

import pytest

from acceptance.phase2.moments import Moments, tell
from acceptance.phase2.stage import InContainers
from acceptance.provisioning import PROGRAM, phases_on
from acceptance.suite.stage import Stage


@pytest.fixture(scope="session")
def containers(stage: Stage) -> InContainers:
    """Return the stage, which is one of containers."""
    assert isinstance(stage, InContainers)
    return stage


@pytest.fixture(scope="session")
def moments(containers: InContainers, converged: None) -> Moments:
    """Have both phases come, go, crash and start, with somebody who knocks meanwhile."""
    host = containers.containers.host
    if host is None or not containers.plan.published:
        pytest.skip("the plan has no containers, or publishes nothing")
    if "phase1" not in phases_on(containers.lab.hosts[host], PROGRAM):
        pytest.skip(f"phase 1 is not on {host}")
    return tell(containers)
