"""Relays a WebSocket as bytes: sub-protocols, compression, pings and close codes are between the two ends.

Only a 101 of the sandbox gets here, and afterwards both connections belong to nobody else, so there is nothing
that a frame could smuggle. Memory is bounded by the transports' write buffers: a full one stops the other side.
"""

import asyncio
from collections.abc import Callable

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol

from warren.gateway.links import Relay, Upstream, abort


def asks_for_websocket(request: web.BaseRequest) -> bool:
    """Other upgrades are ignored, as RFC 9110 7.8 allows: the request goes on without them."""
    tokens = {token.strip().lower() for value in request.headers.getall("Connection", []) for token in value.split(",")}
    return request.method == "GET" and "upgrade" in tokens and request.headers.get("Upgrade", "").lower() == "websocket"


class _Tail:
    """Takes what came behind the head and waits in the protocol."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        return None


class _End(asyncio.Protocol):
    """One end of the splice. It stands in for aiohttp's protocol, which hears of the end of the connection.

    `passes` is told how many bytes came in at this end.
    """

    def __init__(self, transport: asyncio.Transport, before: BaseProtocol, passes: Callable[[int], None]) -> None:
        self.transport = transport
        self.other: _End | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._before = before
        self._passes = passes
        self._is_over = False
        self._lost: tuple[Exception | None] | None = None

    def data_received(self, data: bytes) -> None:
        self._passes(len(data))
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = (exc,)
        if not self.closed.done():
            self.closed.set_result(None)
        if self.other is not None:
            self.other.transport.close()
        self._tell()

    def end(self) -> None:
        self._is_over = True
        self._tell()

    def _tell(self) -> None:
        """Not before the splice is over: aiohttp would cancel it while the other end still has bytes to send."""
        if self._is_over and self._lost is not None:
            self._before.connection_lost(self._lost[0])


async def splice(request: web.BaseRequest, upstream: Upstream, relay: Relay, head: bytes) -> None:
    """Write the 101, then pass bytes until one side closes; the other is closed after what is queued for it."""
    inner = upstream.transport
    if inner is None or relay.client.is_closing():
        raise ConnectionResetError("cannot relay: one side is gone")
    from_client, from_sandbox = _Tail(), _Tail()
    request.protocol.set_parser(from_client)  # pyright: ignore[reportArgumentType]  # any object with these two methods
    upstream.set_parser(from_sandbox, None)
    ends = _End(relay.client, request.protocol, relay.sends), _End(inner, upstream, relay.receives)
    ends[0].other, ends[1].other = ends[1], ends[0]
    relay.client.write(head + from_sandbox.data)
    relay.receives(len(from_sandbox.data))
    if from_client.data:
        inner.write(from_client.data)
        relay.sends(len(from_client.data))
    for end in ends:
        end.transport.set_protocol(end)
    for end in ends:
        end.transport.resume_reading()
    try:
        await asyncio.gather(*(end.closed for end in ends))
    finally:
        for end in ends:
            abort(end.transport)
            end.end()
