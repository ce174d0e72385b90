"""Logs: one JSON object a line on standard output, with the id of the request they belong to."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

#: The id of the request being answered in this task, or an empty text.
request_id: ContextVar[str] = ContextVar("request_id", default="")

#: Attributes that logging itself puts on a record; all others came with ``extra`` and are printed.
#: "color_message" is uvicorn's message once more, for terminals.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def __init__(self, service: str, replica: str) -> None:
        super().__init__()
        self._service = service
        self._replica = replica

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its line end."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "replica": self._replica,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := request_id.get():
            line["request_id"] = current
        line |= {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


#: What the standard library tells on standard error of lines that could not be written.
_UNWRITTEN = logging.makeLogRecord({"msg": "log lines could not be written"})


class Handler(logging.StreamHandler[TextIO]):
    """Writes at once what one turn of the event loop has logged: each write costs whoever collects the logs a turn."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._due = False
        self._broken = False

    def flush(self) -> None:
        """Write soon, or now if no event loop runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._write()
            return
        if not self._due:
            self._due = True
            loop.call_soon(self._write)

    def _write(self) -> None:
        self._due = False
        try:
            super().flush()
        except (OSError, ValueError):  # nobody reads any more, or the disk is full; to log that would end here again
            if not self._broken:
                self.handleError(_UNWRITTEN)
            self._broken = True
        else:
            self._broken = False


def configure(service: str, replica: str, level: int) -> None:
    """Send all logs of this process to standard output as JSON."""
    handler = Handler(sys.stdout)
    handler.setFormatter(JsonFormatter(service, replica))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # It reports each connection at "info"; what matters of it is logged by the services themselves.
    logging.getLogger("psycopg").setLevel(max(level, logging.WARNING))
