"""Around every request: its id, answered and bound to what it causes, and its span."""

from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from warren.telemetry import request_id, tracing


class RequestScope:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        chosen = request_id.accepted(headers.get(request_id.HEADER))

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[request_id.HEADER] = chosen
                _describe(span, scope, message["status"])
            await send(message)

        parent = headers.get(tracing.PARENT)
        with request_id.bound(chosen), tracing.span("api", parent, request=chosen) as span:
            await self._app(scope, receive, named)


def _describe(span: Any, scope: Scope, status: int) -> None:
    if span is not None:
        span.update_name(f"{scope['method']} {getattr(scope.get('route'), 'path', 'no route')}")
        span.set_attribute("http.response.status_code", status)
