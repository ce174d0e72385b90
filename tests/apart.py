"""Every unit test runs apart from the labs of this machine, and fails if it reaches for one all the same.

A pytest plug-in, which ``conftest.py`` takes in. What leads to labs leads to places of the test's own: names in the
kernel are the machine's, so it is not enough to record labs elsewhere.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.guard import VARIABLES, Guard, Labs
from underlay.hosts.vagrant import labs as vagrant

#: What says which plan, lab and hosts are meant: nothing to a test that does not say it itself.
_CHOOSING = ("UNDERLAY_PLAN", "UNDERLAY_LAB", "UNDERLAY_HOSTS")
#: The first word of the tests' names in the kernel: no lab has one of these.
_GROUP = f"of-the-tests-{os.getpid()}"


@dataclass(frozen=True, slots=True)
class Places:
    """Where a test's labs are, if it makes any; nothing is there before."""

    directory: Path

    @property
    def state(self) -> Path:
        """For the records of labs."""
        return self.directory / "state"

    @property
    def run(self) -> Path:
        """For pins; its name begins those of control groups."""
        return self.directory / _GROUP

    @property
    def dot(self) -> Path:
        """For what Vagrant notes down."""
        return self.directory / "vagrant"

    @property
    def repository(self) -> Path:
        """For what is looked for in the checkout, and handed over from it."""
        return self.directory / "repository"

    def take_effect(self, patch: pytest.MonkeyPatch) -> None:
        """Let everything lead here, in this process and in those that it starts."""
        for variable, path in zip(VARIABLES, (self.state, self.run, self.dot), strict=True):
            patch.setenv(variable, str(path))
        for variable in _CHOOSING:
            patch.delenv(variable, raising=False)
        patch.setattr(vagrant, "REPOSITORY", self.repository)


@pytest.fixture(scope="session", autouse=True)
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """What refuses to reach a lab, for the whole run: fixtures of a module are guarded, too."""
    found = Guard(Labs.of_this_machine(), _GROUP)
    send = signal.pidfd_send_signal

    def send_to_own(descriptor: int, sent: int) -> None:
        found.signalled(descriptor, sent)
        send(descriptor, sent)

    with pytest.MonkeyPatch.context() as patch:
        Places(tmp_path_factory.mktemp("apart")).take_effect(patch)
        patch.setattr(signal, "pidfd_send_signal", send_to_own)
        sys.addaudithook(found.hear)  # there is no way to take it off again
        yield found
        found.on = False


@pytest.fixture(autouse=True)
def apart(guard: Guard, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    """This test's places; the test fails if it was refused something, whoever caught that."""
    # pytest's own way looks through all earlier ones, which are many.
    places = Places(Path(tempfile.mkdtemp(prefix="apart-", dir=tmp_path_factory.getbasetemp())))
    places.take_effect(monkeypatch)
    yield places
    if refused := guard.refused():
        pytest.fail("refused, to keep the labs of this machine as they are: it " + "; it ".join(refused))
