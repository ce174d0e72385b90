"""The frame that the three services share: JSON errors, request ids, the replica's name, access logs, health."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from threading import Event

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common import logs
from services.common.errors import ApiError, error_body

_log = logging.getLogger("services.access")

#: Largest body that is read, in bytes. An order is far smaller; the edge has the same limit.
MAX_BODY = 16 * 1024

#: A client may name its request; other texts are replaced, so that logs cannot be forged.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

HEALTH_PATH = "/health"
#: The key in the server's state of the event that says that it was told to stop.
LEAVING = "leaving"
#: Characters of a path at most. Ours are far shorter, and int() refuses numbers of thousands of digits.
_LONGEST_PATH = 256
#: What servers log of a client that leaves before it is answered; nobody sees it.
_CLIENT_LEFT = 499
JSON = "application/json"

OK = "ok"
DEGRADED = "degraded"
UNAVAILABLE = "unavailable"

#: Asks each dependency how it is: ``ok``, ``degraded`` (we can do without) or ``unavailable``.
Dependencies = Callable[[], Awaitable[Mapping[str, str]]]


def make_app(
    service: str,
    replica: str,
    routes: Sequence[BaseRoute],
    dependencies: Dependencies,
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]],
) -> ASGIApp:
    """Return an ASGI application that answers ``routes`` and ``/health`` and turns every error into JSON.

    ``lifespan`` opens what the service needs and closes it again at the end.
    """

    async def health(_request: Request) -> Response:
        return _health(service, replica, await dependencies())

    app = Starlette(
        routes=[*routes, Route(HEALTH_PATH, health)],
        exception_handlers={ApiError: _api_error, HTTPException: _http_error, Exception: _http_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect to the "right" path would be an answer without JSON
    return _Frame(app, replica)


def answer(body: object, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in JSON."""
    text = json.dumps(body, separators=(",", ":"))
    return Response(f"{text}\n", status, headers, JSON)


def request_id(request: Request) -> str:
    """Return the request's id: the client's own, if it gave a good one."""
    return str(request.state.request_id)


def tell_cache(request: Request, outcome: str | None) -> None:
    """Have the answer to this request, whatever it becomes, say in X-Cache where it came from."""
    request.state.cache = outcome


def number(request: Request, largest: int) -> int:
    """Return the path's ``number`` (in a route: ``{number:int}``); raise HTTPException 404 above ``largest``."""
    value = int(request.path_params["number"])
    if value > largest:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return value


async def read_body(request: Request) -> bytes:
    """Return the request's body; raise HTTPException 413 as soon as it is known to be larger than MAX_BODY."""
    announced = request.headers.get("Content-Length", "0")
    if announced.isdecimal() and int(announced) > MAX_BODY:
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return bytes(body)


async def json_body(request: Request) -> object:
    """Return the request's JSON; raise ApiError 415 for another type of content and 400 for what is not JSON."""
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != JSON and not (media_type.startswith("application/") and media_type.endswith("+json")):
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            _code(HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
            f"expected Content-Type {JSON}, seen {media_type or 'none'}",
        )
    data = await read_body(request)
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of opening brackets
        where = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ApiError(HTTPStatus.BAD_REQUEST, "malformed_json", f"the body is not JSON{where}") from error
    return value


class _Frame:
    """Around the whole application, its answers to unforeseen errors included: headers and the access log."""

    def __init__(self, app: ASGIApp, replica: str) -> None:
        self._app = app
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        asked = Headers(scope=scope)
        given = asked.get("X-Request-Id", "")
        name = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        logs.request_id.set(name)
        state = scope.setdefault("state", {})
        state["request_id"] = name
        leaving: Event | None = state.get(LEAVING)
        status = 0

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Served-By"] = self._replica
                headers["X-Request-Id"] = name
                headers["Cache-Control"] = "no-store"
                if cache := state.get("cache"):
                    headers["X-Cache"] = cache
                if leaving is not None and leaving.is_set():
                    headers["Connection"] = "close"  # its client would send the next request here as well
            await send(message)

        # A route's pattern would let a line end pass behind it.
        path = str(scope["path"])
        app = self._app if path.isprintable() and len(path) <= _LONGEST_PATH else _http_answer(HTTPStatus.NOT_FOUND)
        try:
            await app(scope, receive, finish)
        except ClientDisconnect:
            status = _CLIENT_LEFT
        except asyncio.CancelledError:  # the server ends, and has waited for this request as long as it may
            if status:
                raise
            await _http_answer(HTTPStatus.SERVICE_UNAVAILABLE)(scope, receive, finish)
        except Exception:
            # It has been answered as an internal error, and was raised again for us to tell of.
            _log.exception("an error that nobody foresaw")
        finally:
            self._tell(scope, asked, status, time.monotonic() - started)

    def _tell(self, scope: Scope, asked: Headers, status: int, seconds: float) -> None:
        client = scope.get("client")
        _log.log(
            logging.DEBUG if scope["path"] == HEALTH_PATH else logging.INFO,
            "request",
            extra={
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "seconds": round(seconds, 4),
                "client": asked.get("X-Forwarded-For", client[0] if client else None),
                "cache": scope["state"].get("cache"),
            },
        )


def _health(service: str, replica: str, states: Mapping[str, str]) -> Response:
    missing = [name for name, state in states.items() if state == UNAVAILABLE]
    body: dict[str, object] = {"status": OK, "service": service, "replica": replica, "dependencies": dict(states)}
    if missing:
        details = [{"dependency": name, "message": f"{name} does not answer as it should"} for name in missing]
        body |= error_body("unavailable", f"missing: {', '.join(missing)}", details) | {"status": UNAVAILABLE}
    elif DEGRADED in states.values():
        body["status"] = DEGRADED
    return answer(body, HTTPStatus.SERVICE_UNAVAILABLE if missing else HTTPStatus.OK)


async def _api_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return answer(error_body(error.code, error.message, error.details), error.status)


async def _http_error(_request: Request, error: Exception) -> Response:
    """Answer the framework's own errors; one that nobody foresaw becomes 500, without a word of its own."""
    known = error if isinstance(error, HTTPException) else HTTPException(HTTPStatus.INTERNAL_SERVER_ERROR)
    return _http_answer(HTTPStatus(known.status_code), known.headers)


def _http_answer(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> Response:
    body = error_body(_code(status), _SAID.get(status, status.description or status.phrase))
    return answer(body, status, headers)


_SAID = {
    HTTPStatus.NOT_FOUND: "there is nothing at this path",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not take this method; the header Allow names those it takes",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: f"the body is larger than {MAX_BODY} bytes",
    HTTPStatus.SERVICE_UNAVAILABLE: "this replica ends before it could answer; whether it was done is not known",
    HTTPStatus.INTERNAL_SERVER_ERROR: "something went wrong on our side; the log has it under this X-Request-Id",
}


def _code(status: HTTPStatus) -> str:
    named = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "payload_too_large", HTTPStatus.INTERNAL_SERVER_ERROR: "internal",
             HTTPStatus.SERVICE_UNAVAILABLE: "unavailable"}  # fmt: skip
    return named.get(status, status.phrase.lower().replace(" ", "_").replace("-", "_"))
