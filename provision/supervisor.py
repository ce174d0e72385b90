"""A client of supervisord's XML-RPC interface over its unix socket.

The protocol is plain XML-RPC over HTTP (supervisord's documentation, "XML-RPC API"); `supervisorctl` speaks it too, but
costs a Python start for each word.
"""

from __future__ import annotations

import http
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from underlay.errors import NotReady, Problem
from underlay.wait import NotYet, until

SOCKET = Path("/run/supervisor.sock")
CONFIG_DIR = Path("/etc/supervisor/conf.d")

# Fault codes, supervisor/xmlrpc.py
_BAD_NAME, _ALREADY_ADDED, _NOT_RUNNING, _ALREADY_STARTED = 10, 90, 70, 60


#: Seconds between two questions whether a program has ended.
_SLOWEST_S = 0.2
#: States in which a program may be forgotten (supervisor/states.py, STOPPED_STATES).
_AT_REST = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")


@dataclass(frozen=True, slots=True)
class ProgramState:
    """What supervisord says of a program: ``state`` like RUNNING or FATAL, ``pid`` 0 when it has none."""

    state: str
    pid: int
    description: str

    @property
    def at_rest(self) -> bool:
        """Whether the supervisor does nothing with it: neither runs it nor is about to start or stop it."""
        return self.state in _AT_REST


class Supervisor:
    """The supervisor of this host. Every call has a time-out in seconds and raises NotReady when none answers."""

    def __init__(self, where: str, timeout: float, path: Path = SOCKET) -> None:
        self._where = where
        self._timeout = timeout
        self._path = path

    def programs(self) -> Mapping[str, ProgramState]:
        """All programs by name."""
        answer = self._call("getAllProcessInfo")
        if not isinstance(answer, list):
            raise self._odd(answer)
        return {
            str(item["name"]): ProgramState(str(item["statename"]), int(item["pid"]), str(item["description"]))
            for item in answer
        }

    def reload(self) -> None:
        """Read the configuration files again. Programs are neither added nor stopped by this."""
        self._call("reloadConfig")

    def add(self, program: str) -> None:
        """Start to look after a program whose configuration was read."""
        self._call("addProcessGroup", program, forgive=(_ALREADY_ADDED,))

    def start(self, program: str) -> None:
        """Start a program, without waiting until it counts as running."""
        self._call("startProcess", program, False, forgive=(_ALREADY_STARTED,))

    def stop(self, program: str) -> None:
        """Ask a program to stop, without waiting."""
        self._call("stopProcess", program, False, forgive=(_NOT_RUNNING, _BAD_NAME))

    def stopped(self, program: str) -> None:
        """Wait until a program that was asked to stop has ended."""

        def ended() -> bool | NotYet:
            state = self.programs().get(program)
            return True if state is None or state.at_rest else NotYet(f"{program} is {state.state}")

        until(ended, deadline_s=self._timeout, what=f"the end of {program}", where=self._where, slowest=_SLOWEST_S)

    def forget(self, program: str) -> None:
        """Stop looking after a stopped program."""
        self._call("removeProcessGroup", program, forgive=(_BAD_NAME,))

    def _call(self, method: str, *arguments: str | bool, forgive: Sequence[int] = ()) -> object:
        # Slow to load, and a host without services asks nothing.
        import xmlrpc.client

        from underlay import unixhttp

        body = xmlrpc.client.dumps(tuple(arguments), f"supervisor.{method}")
        headers = {"Content-Type": "text/xml"}
        try:
            said = unixhttp.request(self._path, "POST", "/RPC2", timeout=self._timeout, body=body, headers=headers)
        except OSError as error:
            hint = f"is supervisord running? Its socket is {self._path}"
            raise NotReady(Problem(self._where, f"the supervisor does not answer: {error}", hint)) from error
        if said.status != http.HTTPStatus.OK:
            what = f"the supervisor answers {method} with {said.status} {said.reason}"
            raise NotReady(Problem(self._where, what, f"is it ours? Its socket is {self._path}"))
        try:
            (answer,), _ = xmlrpc.client.loads(said.body)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode in forgive:
                return None
            what = f"the supervisor refused {method}{arguments!r}: {fault.faultString}"
            raise NotReady(Problem(self._where, what, "see /var/log/supervisor/supervisord.log")) from fault
        return answer

    def _odd(self, answer: object) -> NotReady:
        return NotReady(Problem(self._where, f"the supervisor gave an odd answer: {answer!r}"))
