"""Counts requests and the time they take, by route: never by path, which clients choose."""

import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from warren.telemetry.meters import Meters

NO_ROUTE = "none"
OTHER_METHOD = "other"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""The method, too, is the client's word: what is not in here shares one label."""


class RequestMeter:
    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self._app = app
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # what the server says for us when the application raises before it answers

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        since = time.perf_counter()
        try:
            await self._app(scope, receive, noted)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else OTHER_METHOD
            route = _template(scope)
            self._meters.api_requests.labels(method, route, str(status)).inc()
            self._meters.api_seconds.labels(method, route).observe(time.perf_counter() - since)


def _template(scope: Scope) -> str:
    """The router leaves the route that it found in the scope, which is the same object all the way down."""
    found: Any = scope.get("route")
    return str(getattr(found, "path", NO_ROUTE))
