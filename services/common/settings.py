"""Settings from environment variables: every mistake is collected, so that one start shows all of them."""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

_LEVELS = ("debug", "info", "warning", "error")
_PORTS = range(1, 65536)


class SettingsError(Exception):
    """Some variables are missing or wrong; ``mistakes`` has one line for each."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        self.mistakes = mistakes
        super().__init__("\n".join(mistakes))


class Reader:
    """Reads variables one by one; :meth:`finish` raises SettingsError if any of them was wrong.

    A method that meets a mistake notes it and returns a stand-in of the right type, which nobody gets to use
    because :meth:`finish` must be called before the settings are.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._mistakes: list[str] = []

    def finish(self) -> None:
        """Raise SettingsError with all mistakes met so far, if there are any."""
        if self._mistakes:
            raise SettingsError(tuple(self._mistakes))

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text that is not empty."""
        value = self._environment.get(name, "") or default
        if value is None:
            self._mistakes.append(f"{name}: it is not set; set it in the environment")
            return ""
        return value

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        """Return one of a few words."""
        value = self.text(name, default)
        if value not in choices:
            self._wrong(name, value, f"one of {', '.join(choices)}")
        return value

    def integer(self, name: str, allowed: range, default: int | None = None) -> int:
        """Return a whole number within a range."""
        value = self.text(name, None if default is None else str(default))
        # isdecimal alone admits digits of other scripts, and int() refuses texts of thousands of digits.
        number = int(value) if value.isascii() and value.isdecimal() and len(value) <= len(str(allowed.stop)) else -1
        if value and number not in allowed:
            self._wrong(name, value, f"a whole number from {allowed.start} to {allowed.stop - 1}")
        return number

    def port(self, name: str) -> int:
        """Return a TCP port."""
        return self.integer(name, _PORTS)

    def seconds(self, name: str, default: float | None = None) -> float:
        """Return a duration in seconds, above zero."""
        value = self.text(name, None if default is None else str(default))
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if value and not 0 < number < math.inf:
            self._wrong(name, value, "a number of seconds above 0")
        return number

    def address(self, name: str) -> str:
        """Return an IP address."""
        value = self.text(name)
        try:
            return str(ip_address(value))
        except ValueError:
            if value:
                self._wrong(name, value, "an IP address such as 127.0.0.1 (0.0.0.0 listens on all)")
            return ""

    def url(self, name: str) -> str:
        """Return the address of a service: ``http://name:port`` and nothing behind it."""
        value = self.text(name)
        try:
            parts = urlsplit(value)
            good = parts.scheme == "http" and parts.hostname and parts.port
            rest = parts.path.strip("/") + parts.query + parts.fragment + (parts.username or "")
        except ValueError:
            good, rest = None, ""
        if value and (not good or rest):
            self._wrong(name, value, "http://NAME:PORT")
        return value.rstrip("/")

    def secret(self, name: str) -> str:
        """Return the first line of the file that the variable names. The secret itself is never in a message."""
        path = self.text(name)
        if not path:
            return ""
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            self._mistakes.append(f"{name}: the file {path} cannot be read: {reason}; it must hold the password")
            return ""
        if not lines or not lines[0]:
            self._mistakes.append(f"{name}: the file {path} is empty; its first line must be the password")
            return ""
        return lines[0]

    def _wrong(self, name: str, value: str, expected: str) -> None:
        self._mistakes.append(f"{name}: expected {expected}, seen {value!r}")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a service listens and stops: BIND_ADDRESS, PORT, REPLICA, GRACEFUL_TIMEOUT (s), LOG_LEVEL."""

    bind_address: str
    port: int
    replica: str
    graceful_timeout: int
    log_level: str

    @classmethod
    def read(cls, reader: Reader) -> ServerSettings:
        """Read the variables that all services have. REPLICA is the host's name unless it is set."""
        return cls(
            bind_address=reader.address("BIND_ADDRESS"),
            port=reader.port("PORT"),
            replica=reader.text("REPLICA", socket.gethostname()),
            graceful_timeout=reader.integer("GRACEFUL_TIMEOUT", range(1, 3601), 10),
            log_level=reader.choice("LOG_LEVEL", _LEVELS, "info"),
        )

    @property
    def level(self) -> int:
        """The log level as :mod:`logging` numbers it."""
        return logging.getLevelNamesMapping()[self.log_level.upper()]


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where PostgreSQL is and how long to wait for it. Times are in seconds.

    ``wait``: for a connection out of the pool, so also how soon a client hears that the database is away;
    ``statement``: one statement, its locks included; ``connect``: one connection attempt (libpq counts in whole
    seconds and takes 2 at least).
    """

    host: str
    port: int
    name: str
    user: str
    password: str = field(repr=False)
    pool_size: int
    connect: float
    wait: float
    statement: float

    @classmethod
    def read(cls, reader: Reader) -> DatabaseSettings:
        """Read the variables DATABASE_*; the password comes from the file DATABASE_PASSWORD_FILE."""
        return cls(
            host=reader.text("DATABASE_HOST"),
            port=reader.port("DATABASE_PORT"),
            name=reader.text("DATABASE_NAME"),
            user=reader.text("DATABASE_USER"),
            password=reader.secret("DATABASE_PASSWORD_FILE"),
            pool_size=reader.integer("DATABASE_POOL_SIZE", range(1, 257), 4),
            connect=reader.seconds("DATABASE_CONNECT_TIMEOUT"),
            wait=reader.seconds("DATABASE_WAIT_TIMEOUT"),
            statement=reader.seconds("DATABASE_STATEMENT_TIMEOUT"),
        )
