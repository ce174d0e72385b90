"""The frame that the three services share: JSON errors, request ids, the replica's name, access logs, health."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from services.common import logs
from services.common.errors import ApiError, error_body

_log = logging.getLogger("services.access")

#: Largest body that is read, in bytes. An order is far smaller; the edge has the same limit.
MAX_BODY = 16 * 1024

#: A client may name its request; other texts are replaced, so that logs cannot be forged.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

HEALTH_PATH = "/health"

OK = "ok"
DEGRADED = "degraded"
UNAVAILABLE = "unavailable"


def make_app(service: str, replica: str, dependencies: Callable[[], Mapping[str, str]]) -> Flask:
    """Return a Flask application that answers ``/health`` and turns every error into JSON.

    ``dependencies`` asks each dependency how it is: ``ok``, ``degraded`` (we can do without) or ``unavailable``.
    """
    app = Flask(service, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False  # a redirect to the "right" path would be an answer in HTML
    _add_headers_and_logs(app, replica)
    _add_errors(app)
    _add_health(app, service, replica, dependencies)
    return app


def json_body() -> object:
    """Return the request's JSON; raise ApiError 415 for another type of content and 400 for what is not JSON."""
    if not request.is_json:
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            _code(HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
            f"expected Content-Type application/json, seen {request.mimetype or 'none'}",
        )
    data = request.get_data()
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of opening brackets
        where = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ApiError(HTTPStatus.BAD_REQUEST, "malformed_json", f"the body is not JSON{where}") from error
    return value


def _add_headers_and_logs(app: Flask, replica: str) -> None:
    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        g.started = time.monotonic()
        logs.request_id.set(g.request_id)

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers["X-Served-By"] = replica
        response.headers["X-Request-Id"] = g.request_id
        response.headers["Cache-Control"] = "no-store"
        _log.log(
            logging.DEBUG if request.path == HEALTH_PATH else logging.INFO,
            "request",
            extra={
                "method": request.method,
                "path": request.path,
                "status": response.status_code,
                "seconds": round(time.monotonic() - g.started, 4),
                "client": request.headers.get("X-Forwarded-For", request.remote_addr),
                "cache": response.headers.get("X-Cache"),
            },
        )
        return response

    @app.teardown_request
    def forget(_error: BaseException | None) -> None:
        logs.request_id.set("")


def _add_errors(app: Flask) -> None:
    @app.errorhandler(ApiError)
    def api_error(error: ApiError) -> Response:
        return _error(error.status, error.code, error.message, error.details)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        # Errors that nobody foresaw come here too, as 500 without a word of their own: Flask has logged them.
        status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
        response = _error(status, _code(status), _SAID.get(status, status.description or status.phrase))
        for name, value in error.get_headers():
            if name.lower() not in {"content-type", "content-length"}:
                response.headers[name] = value
        return response


def _add_health(app: Flask, service: str, replica: str, dependencies: Callable[[], Mapping[str, str]]) -> None:
    @app.get(HEALTH_PATH)
    def health() -> Response:
        states = dict(dependencies())
        missing = [name for name, state in states.items() if state == UNAVAILABLE]
        body: dict[str, object] = {"status": OK, "service": service, "replica": replica, "dependencies": states}
        if missing:
            details = [{"dependency": name, "message": f"{name} does not answer as it should"} for name in missing]
            body |= error_body("unavailable", f"missing: {', '.join(missing)}", details) | {"status": UNAVAILABLE}
        elif DEGRADED in states.values():
            body["status"] = DEGRADED
        response = jsonify(body)
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE if missing else HTTPStatus.OK
        return response


_SAID = {
    HTTPStatus.NOT_FOUND: "there is nothing at this path",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not take this method; the header Allow names those it takes",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: f"the body is larger than {MAX_BODY} bytes",
    HTTPStatus.INTERNAL_SERVER_ERROR: "something went wrong on our side; the log has it under this X-Request-Id",
}


def _code(status: HTTPStatus) -> str:
    named = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "payload_too_large", HTTPStatus.INTERNAL_SERVER_ERROR: "internal"}
    return named.get(status, status.phrase.lower().replace(" ", "_").replace("-", "_"))


def _error(status: HTTPStatus, code: str, message: str, details: tuple[Mapping[str, str], ...] = ()) -> Response:
    response = jsonify(error_body(code, message, details))
    response.status_code = status
    return response
