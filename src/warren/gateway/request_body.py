"""The body of a client's request on its way to the sandbox."""

import asyncio

from aiohttp import web
from aiohttp.http import StreamWriter

from warren.gateway.heads import Framing
from warren.gateway.links import Relay, Upstream

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestBody:
    """`failed`: the client sent something that is no body. `is_sent`: all of it is with the sandbox."""

    def __init__(self, request: web.BaseRequest, framing: Framing, relay: Relay) -> None:
        self._content = request.content
        self._framing = framing
        self._relay = relay
        self._awaits_continue = request.headers.get("Expect", "").lower() == "100-continue"
        self.failed = False
        self.is_sent = False

    def is_here(self) -> bool:
        """Nothing more will come: the common case of no body, or of a short one in the same packet as the head."""
        return self._content.is_eof()

    def send_with_head(self, upstream: Upstream, head: bytes) -> None:
        data = self._content.read_nowait(-1)
        self._relay.sent += len(data)
        if self._framing.chunked:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        _write(upstream, head + data)
        self.is_sent = True

    async def send(self, upstream: Upstream) -> None:
        """Does not raise: a sandbox that stops reading may still answer, and the answer is what counts."""
        if self._awaits_continue and self._content.total_bytes == 0:
            self._relay.client.write(CONTINUE)
        writer = StreamWriter(upstream, asyncio.get_running_loop())
        if self._framing.chunked:
            writer.enable_chunking()
        writer.length = self._framing.length
        try:
            while chunk := await self._content.readany():
                self._relay.sends(len(chunk))
                await writer.write(chunk)
            await writer.write_eof()
            self.is_sent = True
        except web.RequestPayloadError:
            self.failed = True
            upstream.reset()
        except ConnectionError:
            return


def _write(upstream: Upstream, data: bytes) -> None:
    if upstream.transport is None:
        raise ConnectionResetError("cannot write: the sandbox closed the connection")
    upstream.transport.write(data)
