"""A client of Docker's Engine API over its socket (https://docs.docker.com/reference/api/engine/), for looking.

What is changed is changed with the `docker` command, as a person would. A question costs a millisecond or two here, and
a hundred with that command.
"""

from __future__ import annotations

import http
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from provision.once import Once
from underlay.errors import NotReady, Problem
from underlay.process import run
from underlay.topology import Timeouts
from underlay.unixhttp import request
from underlay.wait import NotYet, until

SOCKET = Path("/run/docker.sock")
#: Compose, without the .env that lies where it is started.
COMPOSE = ("docker", "compose", "--env-file", "/dev/null")
#: The oldest version of the interface that has all that is asked here; each daemon speaks older ones, too.
_VERSION = "v1.44"

#: Parts of the plan's `ready` after which a daemon does not answer.
_PINGS = 6

#: What :mod:`json` reads.
Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"


@dataclass(frozen=True, slots=True)
class Said:
    """A part of an answer. What is not there is empty: Docker leaves out what it has nothing to say of."""

    value: Json

    def at(self, *keys: str) -> Said:
        """Return the part below these keys."""
        found = self.value
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return Said(found)

    def text(self, *keys: str) -> str:
        """Return a text; "" if there is none."""
        found = self.at(*keys).value
        return "" if found is None else str(found)

    def number(self, *keys: str) -> int:
        """Return a whole number; 0 if there is none."""
        found = self.at(*keys).value
        return int(found) if isinstance(found, int | float) else 0

    def texts(self, *keys: str) -> tuple[str, ...]:
        """Return a list of texts; an empty one if there is none."""
        return tuple(str(item.value) for item in self.at(*keys).parts())

    def parts(self) -> Iterator[Said]:
        """Yield the items of a list, or the values of a mapping."""
        if isinstance(self.value, Mapping):
            yield from (Said(item) for item in self.value.values())
        elif isinstance(self.value, Sequence) and not isinstance(self.value, str):
            yield from (Said(item) for item in self.value)

    def items(self, *keys: str) -> Iterator[tuple[str, Said]]:
        """Yield keys and values of a mapping."""
        found = self.at(*keys).value
        if isinstance(found, Mapping):
            yield from ((str(key), Said(item)) for key, item in found.items())


class Docker:
    """The daemon of this host. Every question has a time-out."""

    def __init__(self, where: str, timeouts: Timeouts, socket: Path = SOCKET) -> None:
        self._where, self._timeouts, self._socket = where, timeouts, socket
        self._there = Once(lambda: self._silent() is None)
        self._containers = Once(self._look)
        #: By the project's text, of which alone they follow.
        self._hashes: dict[str, Mapping[str, str]] = {}

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self._socket

    def answers(self) -> bool:
        """Whether a daemon answers. Asked once, until that is forgotten: a frozen one costs all of the time-out."""
        return self._there.answer()

    def forget(self) -> None:
        """Forget whether it answers, and what it said of containers."""
        self._there.forget()
        self._containers.forget()

    def wait(self, deadline_s: float, hint: str = "") -> None:
        """Wait until it answers; NotReady, with the last thing seen and a hint, if it does not."""
        self.forget()

        def probe() -> bool | NotYet:
            silent = self._silent()
            return True if silent is None else NotYet(silent)

        hint = hint or f"see what it said: ./lab logs {self._where} docker"
        until(probe, deadline_s=deadline_s, what="an answer of Docker", where=self._where, hint=hint, slowest=0.2)

    def hashes(self, project: str) -> Mapping[str, str]:
        """Return what tells each service of a project's file (its text) from another one: Compose's own word for it.

        A container bears that of which it was made. Nothing of the daemon is asked.
        """
        if project not in self._hashes:
            argv = (*COMPOSE, "--file", "-", "config", "--hash", "*")
            said = run(argv, timeout=self._timeouts.command, stdin=project, where=self._where).stdout
            self._hashes[project] = dict(line.split() for line in said.splitlines())
        return self._hashes[project]

    def containers(self) -> tuple[Said, ...]:
        """Return all containers, whether they run or not, as `docker container inspect` shows them; until forgotten."""
        return self._containers.answer()

    def _look(self) -> tuple[Said, ...]:
        listed = (item.text("Id") for item in self._ask("/containers/json?all=true").parts())
        return tuple(found for name in listed if (found := self.find("containers", name, "/json")))

    def version(self) -> str:
        """Return the engine's version."""
        return self._ask("/version").text("Version")

    def networks(self) -> tuple[Said, ...]:
        """Return all networks, as `docker network inspect` shows them."""
        return tuple(self._ask("/networks").parts())

    def volumes(self) -> tuple[Said, ...]:
        """Return all volumes, as `docker volume inspect` shows them."""
        return tuple(self._ask("/volumes").at("Volumes").parts())

    def find(self, kind: str, name: str, more: str = "") -> Said | None:
        """Return one thing of a kind (images, containers) by its name or number; None if there is none."""
        path = f"/{kind}/{quote(name, safe='/@:')}{more}"
        said = self._request(path)
        return None if said is None else Said(said)

    def _ask(self, path: str) -> Said:
        return Said(self._request(path))

    def _request(self, path: str) -> Json:
        try:
            answer = request(self._socket, "GET", f"/{_VERSION}{path}", timeout=self._timeouts.command)
        except OSError as error:
            hint = f"does it run? ./lab logs {self._where} docker"
            raise NotReady(Problem(self._where, f"Docker does not answer on {self._socket}: {error}", hint)) from error
        if answer.status == http.HTTPStatus.NOT_FOUND:
            return None
        if answer.status != http.HTTPStatus.OK:
            what = f"Docker answers {path} with {answer.status}: {answer.body.decode(errors='replace').strip()}"
            raise NotReady(Problem(self._where, what, f"see ./lab logs {self._where} docker"))
        found: Json = json.loads(answer.body)
        return found

    def _silent(self) -> str | None:
        """Return None if a daemon answers, else what was seen."""
        try:
            answer = request(self._socket, "GET", "/_ping", timeout=self._timeouts.ready / _PINGS)
        except OSError as error:
            return f"{self._socket}: {error}"
        return None if answer.status == http.HTTPStatus.OK else f"{self._socket}: {answer.status} {answer.reason}"
