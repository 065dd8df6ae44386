"""One id for everything that a request causes: in every log line, in the audit log, in the guest's log."""

import re
import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import cast

import structlog

HEADER = "X-Request-Id"

_WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME = "request"


def accepted(given: str | None) -> str:
    """The client's own, if it is short and plain; else a new one."""
    return given if given is not None and _WELL_FORMED.fullmatch(given) else secrets.token_hex(8)


@contextmanager
def bound(request_id: str) -> Generator[None]:
    """Tasks and threads started meanwhile keep it."""
    with structlog.contextvars.bound_contextvars(**{_NAME: request_id}):
        yield


def current() -> str:
    """Of the request that this is done for; empty for what the server does by itself."""
    return str(cast("Mapping[str, object]", structlog.contextvars.get_contextvars()).get(_NAME, ""))
