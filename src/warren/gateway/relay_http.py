"""Relays one HTTP exchange: streams both bodies with back-pressure, keeps nothing, changes no byte of content."""

import asyncio
from dataclasses import dataclass

from aiohttp import web
from aiohttp.client_exceptions import ClientError, ClientPayloadError
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

from warren.gateway import heads
from warren.gateway.connector import connect, keeps_alive
from warren.gateway.links import Link, Relay, Upstream
from warren.gateway.relay_ws import asks_for_websocket, splice
from warren.gateway.request_body import RequestBody
from warren.model import limits


class BadUpstream(Exception):
    """cannot relay the answer: the sandbox closed the connection, or what it says is not HTTP"""


class BadBody(Exception):
    """cannot read the request's body"""


class Sent(web.StreamResponse):
    """Tells aiohttp that the answer is already on the wire, and whether the connection may serve another request."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keeps_alive = keep_alive

    @property
    def keep_alive(self) -> bool:
        return self._keeps_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and where it goes. `path` is the request target in origin form."""

    request: web.BaseRequest
    path: str
    link: Link
    port: int
    forwarding: heads.Forwarding
    relay: Relay


async def relay_http(exchange: Exchange) -> web.StreamResponse:
    """Raises MalformedHead or BadBody (the client's fault), PortClosed, or BadUpstream."""
    request, relay = exchange.request, exchange.relay
    framing = heads.request_framing(request.raw_headers)
    upgrades = asks_for_websocket(request)
    if upgrades and framing != heads.Framing():
        raise heads.MalformedHead("cannot upgrade a request that has a body")
    keeps = keeps_alive(exchange.link, exchange.port)
    connection = b"Upgrade" if upgrades else b"keep-alive" if keeps else b"close"
    line = heads.RequestLine(request.method, exchange.path)
    head = heads.request_head(line, request.raw_headers, exchange.forwarding, framing, connection)
    body = RequestBody(request, framing, relay)
    upstream = relay.upstream = await connect(exchange.link, exchange.port)
    upstream.set_response_params(
        skip_payload=request.method == "HEAD",
        read_until_eof=True,
        auto_decompress=False,
        read_bufsize=limits.GATEWAY_CHUNK_BYTES,
        max_line_size=limits.GATEWAY_LINE_BYTES,
        max_field_size=limits.GATEWAY_FIELD_BYTES,
        max_headers=limits.GATEWAY_FIELDS_MAX,
    )
    is_whole = False
    try:
        if body.is_here():
            body.send_with_head(upstream, head)
            sent, is_whole = await _answer(exchange, upstream, upgrades=upgrades)
        else:
            sent, is_whole = await _answer_while_sending(exchange, upstream, head, body)
        return sent
    except (ClientError, HttpProcessingError, ConnectionError) as error:
        if body.failed:
            raise BadBody from error
        raise BadUpstream(str(error)) from error
    finally:
        _put_away(exchange, upstream, reusable=is_whole and body.is_sent and keeps, clean=is_whole)


def _put_away(exchange: Exchange, upstream: Upstream, *, reusable: bool, clean: bool) -> None:
    if reusable:
        exchange.link.give_back(upstream, asyncio.get_running_loop().time())
    elif clean:
        upstream.close()
    else:
        upstream.reset()


async def _answer_while_sending(
    exchange: Exchange, upstream: Upstream, head: bytes, body: RequestBody
) -> tuple[Sent, bool]:
    if upstream.transport is None:
        raise ConnectionResetError("cannot write: the sandbox closed the connection")
    upstream.transport.write(head)
    sending: asyncio.Task[None] | None = None
    try:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(body.send(upstream))
            try:
                return await _answer(exchange, upstream, upgrades=False)
            finally:
                sending.cancel()  # a whole answer before the whole request: nobody wants the rest
    except BaseExceptionGroup as error:
        raise error.exceptions[0] from None  # the sender does not raise, so there is one: the answer's


async def _answer(exchange: Exchange, upstream: Upstream, *, upgrades: bool) -> tuple[Sent, bool]:
    """Whether the answer was whole decides if the sandbox's connection can be used again."""
    request, relay = exchange.request, exchange.relay
    message, payload = await _final_head(upstream)
    http10 = request.version < (1, 1)
    status, raw = message.code, message.raw_headers
    if status == 101 and not upgrades:
        raise BadUpstream("cannot switch protocols: nobody asked for it")
    try:
        framing = heads.response_framing(request.method, status, raw, chunked=message.chunked, http10=http10)
        delimited = framing != heads.Framing() or heads.has_no_body(request.method, status)
        keep_alive = request.keep_alive and not http10 and not upgrades and delimited
        connection = b"Upgrade" if status == 101 else None if keep_alive else b"close"
        head = heads.response_head(status, message.reason or "", raw, framing, connection)
    except heads.MalformedHead as error:
        raise BadUpstream(str(error)) from error
    relay.touch()
    relay.is_answered = True
    if status == 101:
        await splice(request, upstream, relay, head)
        return Sent(keep_alive=False), False
    if heads.has_no_body(request.method, status):
        relay.client.write(head)
        return Sent(keep_alive=keep_alive), True
    is_whole = await _relay_body(exchange, payload, head, framing)
    return Sent(keep_alive=keep_alive and is_whole), is_whole


async def _final_head(upstream: Upstream) -> tuple[RawResponseMessage, StreamReader]:
    for _ in range(limits.GATEWAY_INTERIM_MAX):
        message, payload = await upstream.read()
        if message.code >= 200 or message.code == 101:
            return message, payload
    raise BadUpstream("cannot find the answer among so many interim ones")


async def _relay_body(exchange: Exchange, payload: StreamReader, head: bytes, framing: heads.Framing) -> bool:
    relay, request = exchange.relay, exchange.request
    first = payload.read_nowait(-1)
    relay.received += len(first)
    if payload.is_eof():
        relay.client.write(head + _framed(first, framing, is_last=True))
        await request.writer.drain()
        return True
    relay.client.write(head + _framed(first, framing, is_last=False))
    writer = request.writer
    if framing.chunked:
        writer.enable_chunking()
    try:
        while chunk := await payload.readany():
            relay.receives(len(chunk))
            await writer.write(chunk)
        if not relay.is_cut:
            await writer.write_eof()
            return True
    except (ClientPayloadError, HttpProcessingError, ConnectionError):
        pass
    relay.cut()  # either side is gone; the other must not take what it got for the whole
    return False


def _framed(data: bytes, framing: heads.Framing, *, is_last: bool) -> bytes:
    if not framing.chunked:
        return data
    chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return chunk + b"0\r\n\r\n" if is_last else chunk
