"""The client's side of the gateway: aiohttp's HTTP server with our limits and our error pages."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import structlog
from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from warren.gateway import pages
from warren.model import limits

log = structlog.get_logger(__name__)
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class ClientConnection(RequestHandler):
    """One client. It has a deadline for each head that it begins, and is dropped when there are too many."""

    def __init__(self, server: "ClientServer", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.GATEWAY_KEEPALIVE_S,
            access_log=None,  # pyright: ignore[reportArgumentType]  # documented as "no log"
            max_line_size=limits.GATEWAY_LINE_BYTES,
            max_field_size=limits.GATEWAY_FIELD_BYTES,
            max_headers=limits.GATEWAY_FIELDS_MAX,
            lingering_time=limits.GATEWAY_LINGER_S,
            read_bufsize=limits.GATEWAY_CHUNK_BYTES,
            auto_decompress=False,
        )
        self._server = server
        self._head_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        client = cast("asyncio.Transport", transport)
        if len(self._server.connections) > limits.GATEWAY_CLIENT_CONNECTIONS:
            client.abort()
            return
        client.set_write_buffer_limits(high=limits.GATEWAY_WRITE_BUFFER_BYTES)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """aiohttp queues a parse error behind the request whose body it is in, and that body would never end."""
        super().data_received(data)
        if self._current_request is not None or self._messages:
            self._forget_head()
        elif data and self._head_deadline is None:
            self._expect_head()  # the first bytes of another request, on a connection that was idle
        if self._current_request is None or not self._messages:
            return
        body = self._current_request.content
        if not isinstance(self._messages[-1][0], RawRequestMessage) and not body.is_eof():
            body.set_exception(web.RequestPayloadError("cannot read the request's body"))

    def connection_lost(self, exc: BaseException | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp could not parse; what went wrong here was handled, and logged, by the gateway."""
        if not isinstance(exc, HttpProcessingError):
            log.error("gateway request failed", exc_info=exc)
        text = "cannot read the request: it is not well-formed HTTP" if status == 400 else "cannot serve the request"
        response = pages.answer(pages.malformed(text, status), request.headers)
        response.force_close()
        return response

    def _expect_head(self) -> None:
        self._head_deadline = self._loop.call_later(limits.GATEWAY_HEAD_DEADLINE_S, self._drop)

    def _forget_head(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class ClientServer(Server):
    def __init__(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(handler, handler_cancellation=True, loop=loop)
        self._clients_loop = loop

    def __call__(self) -> RequestHandler:
        return ClientConnection(self, self._clients_loop)
