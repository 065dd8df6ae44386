"""Error class -> HTTP status, in one table, and the one form of every error body (wire contract 2.1)."""

from collections.abc import Mapping
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from warren.api import trail
from warren.model import errors

log = structlog.get_logger(__name__)

STATUS: Mapping[type[errors.WarrenError], int] = {
    errors.BadRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.IdempotencyMismatch: 422,
    errors.LimitReached: 429,
    errors.NotSupported: 501,
    errors.Unavailable: 503,
    errors.NoSpace: 507,
    errors.Timeout: 504,
    errors.BuildFailed: 500,
    errors.EngineFailed: 500,
}
"""Subclasses take the status of the nearest class named here; `tests/unit` proves that each error has one."""

_RETRIED_BY_CLIENTS = frozenset({429, 502, 503, 504})


def status_of(error: type[errors.WarrenError]) -> int:
    for base in error.__mro__:
        if base in STATUS:
            return STATUS[base]
    return 500


def reply(status: int, message: str, error_code: str, path: str = "") -> JSONResponse:
    """`code` equals the status: clients decide by it (wire contract 2.1). For files of volumes it is a text (2.4)."""
    code = error_code if path.startswith("/volumecontent/") else status
    body = {"code": code, "message": message, "error_code": error_code}
    # Clients retry these by themselves and would only be late with the same answer (wire contract 1.5).
    headers = {"Should-Retry": "false"} if status in _RETRIED_BY_CLIENTS else None
    return JSONResponse(body, status_code=status, headers=headers)


def install(app: FastAPI) -> None:
    app.add_exception_handler(errors.WarrenError, _warren_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unforeseen)


async def _warren_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, errors.WarrenError):
        raise error
    trail.decided_by(request, error.code)
    status = status_of(type(error))
    if status >= 500 and status != 501:
        log.error("request failed", status=status, code=error.code, error=error.message)
    return reply(status, error.message, error.code, request.url.path)


async def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    said = "; ".join(
        f"{'.'.join(str(part) for part in one['loc'][1:]) or one['loc'][0]}: {one['msg']}" for one in error.errors()[:5]
    )
    return reply(400, f"cannot read the request: {said}", "bad_request", request.url.path)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 404:
        return reply(404, "cannot find that path; see the API reference for what there is", "no_such_route")
    return reply(error.status_code, str(error.detail), HTTPStatus(error.status_code).name.lower(), request.url.path)


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    """Logged in full, told in short: a message made for us may hold what the caller must not see."""
    log.error("unforeseen error", exc_info=error)
    message = "cannot complete the request: an internal error, logged by the server"
    return reply(500, message, "internal_error", request.url.path)
