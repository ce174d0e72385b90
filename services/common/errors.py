"""The errors that a client of the shop sees: a status, a code for programs and a message for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus


class ApiError(Exception):
    """An answer other than the one that was asked for.

    ``details`` are objects with a ``message`` and what it is about (``field`` or ``dependency``).
    """

    def __init__(self, status: HTTPStatus, code: str, message: str, details: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = tuple(details)


class UnavailableError(ApiError):
    """Something that this answer needs does not answer (503). ``dependency`` names it."""

    def __init__(self, dependency: str, reason: str) -> None:
        super().__init__(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "unavailable",
            f"{dependency} is not available; try again later",
            [{"dependency": dependency, "message": reason}],
        )
        self.dependency = dependency


def error_body(code: str, message: str, details: Sequence[Mapping[str, str]] = ()) -> dict[str, object]:
    """Return the body of an error answer."""
    return {"error": {"code": code, "message": message, "details": [dict(detail) for detail in details]}}
