"""Programs under supervisord: testinfra's module for it, and what it lacks: stopping and starting."""

from __future__ import annotations

from testinfra.modules.supervisor import Supervisor


class Program(Supervisor):  # type: ignore[misc] # testinfra is not marked as typed
    """A program that supervisord(8) runs.

    >>> redis = host.program("redis-1")
    >>> redis.is_running, redis.pid
    (True, 4242)
    >>> redis.stop()
    >>> redis.is_running
    False
    """

    def stop(self) -> None:
        """Stop it, and keep it so. No error if it has stopped."""
        self._do("stop")

    def start(self) -> None:
        """Start it, and wait until the supervisor says that it runs. No error if it does."""
        self._do("start")

    def _do(self, verb: str) -> None:
        self.check_output("supervisorctl %s %s", verb, self.name)
        self._attrs_cache = None
