"""WebSockets through the gateway, and what happens to them and to streams when a sandbox ends."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from tests.integration.gateway_rig import DEADLINE, GUEST_PORT, Rig, to
from warren.model import limits

pytestmark = pytest.mark.anyio
PORT = 8000


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def echo(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse(protocols=["chat.v2"], max_msg_size=1 << 26)
    await socket.prepare(request)
    async for message in socket:
        if message.data == "bye":
            await socket.close(code=4321, message=b"as you wish")
        elif message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        else:
            await socket.send_bytes(message.data)
    return socket


async def test_a_websocket_is_between_its_two_ends(rig: Rig, session: aiohttp.ClientSession) -> None:
    await rig.app(rig.routes.add("abc").address, echo, PORT)
    options = {"headers": to("abc", PORT), "protocols": ["chat.v1", "chat.v2"], "compress": 15, "max_msg_size": 1 << 26}
    async with asyncio.timeout(DEADLINE), session.ws_connect(rig.url, autoping=False, **options) as socket:
        assert (socket.protocol, socket.compress) == ("chat.v2", 15)
        await socket.send_str("hello")
        assert (await socket.receive()).data == "hello"
        large = bytes(range(256)) * 40_000
        await socket.send_bytes(large)
        assert (await socket.receive()).data == large
        await socket.ping(b"there?")
        pong = await socket.receive()
        assert (pong.type, bytes(pong.data)) == (WSMsgType.PONG, b"there?")
        await socket.send_str("bye")
        closed = await socket.receive()
        assert (closed.type, closed.data, closed.extra) == (WSMsgType.CLOSE, 4321, "as you wish")


async def test_the_first_frame_may_come_with_the_request(rig: Rig) -> None:
    async def early(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        assert request.transport is not None
        await socket.send_str("early")
        await socket.receive()
        return socket

    await rig.app(rig.routes.add("abc").address, early, PORT)
    async with rig.raw() as raw:
        await raw.send(
            b"GET / HTTP/1.1\r\nHost: 8000-abc.any.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            b"\x88\x82\x00\x00\x00\x00\x03\xe8"
        )
        assert (await raw.head()).startswith("HTTP/1.1 101 ")
        assert await raw.exactly(7) == b"\x81\x05early"
        assert await raw.exactly(4) == b"\x88\x02\x03\xe8"


async def test_an_end_that_leaves_takes_the_other_along(rig: Rig, session: aiohttp.ClientSession) -> None:
    ended = asyncio.Event()

    async def watch(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        try:
            async for _ in socket:
                pass
        finally:
            ended.set()
        return socket

    await rig.app(rig.routes.add("abc").address, watch, PORT)
    socket = await session.ws_connect(rig.url, headers=to("abc", PORT))
    assert socket._response.connection is not None
    socket._response.connection.transport.abort()  # type: ignore[union-attr]
    async with asyncio.timeout(DEADLINE):
        await ended.wait()


async def test_the_last_words_of_a_client_arrive_although_it_has_left(rig: Rig) -> None:
    heard = bytearray()
    done = asyncio.Event()

    async def slow_listener(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while data := await reader.read(65536):
            heard.extend(data)
            await asyncio.sleep(0.005)
        done.set()

    await rig.script(rig.routes.add("abc").address, slow_listener, PORT)
    words = b"x" * 8_000_000
    async with rig.raw() as raw:
        await raw.send(
            b"GET / HTTP/1.1\r\nHost: 8000-abc.any.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        await raw.head()
        raw.writer.write(words)
        raw.writer.close()
        async with asyncio.timeout(DEADLINE):
            await raw.writer.wait_closed()
            await done.wait()
    assert len(heard) == len(words)


async def test_a_flooded_client_holds_back_the_sandbox(rig: Rig) -> None:
    sent = 0
    stuck = asyncio.Event()

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        try:
            while True:
                async with asyncio.timeout(1):
                    await socket.send_bytes(b"x" * 65536)
                sent += 65536
        except TimeoutError:
            stuck.set()
        return socket

    await rig.app(rig.routes.add("abc").address, flood, PORT)
    async with rig.raw() as raw:
        await raw.send(
            b"GET / HTTP/1.1\r\nHost: 8000-abc.any.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        async with asyncio.timeout(30):
            await stuck.wait()
    assert sent < 64 << 20


async def test_the_end_of_a_sandbox_cuts_all_that_is_open_to_it_and_nothing_else(
    rig: Rig, session: aiohttp.ClientSession
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        if "Upgrade" in request.headers:
            return await echo(request)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await asyncio.sleep(60)
        return response

    for name in ("abc", "other"):
        await rig.app(rig.routes.add(name).address, stream, GUEST_PORT)
    sockets = {name: await session.ws_connect(rig.url, headers=to(name)) for name in ("abc", "other")}
    answer = await session.get(rig.url, headers=to("abc"))
    assert await answer.content.readany() == b"first"
    rig.routes.kill("abc")
    async with asyncio.timeout(1):
        assert (await sockets["abc"].receive()).type in (WSMsgType.CLOSED, WSMsgType.ERROR)
        with pytest.raises(aiohttp.ClientError):
            await answer.content.read()
    gone = await rig.client.get(rig.url + "/health", headers=to("abc"))
    assert (gone.status_code, gone.json()["message"]) == (502, "The sandbox was not found")
    await sockets["other"].send_str("alive")
    assert (await sockets["other"].receive()).data == "alive"
    await sockets["other"].close()


async def test_a_request_without_an_answer_yet_is_told_that_its_sandbox_is_gone(rig: Rig) -> None:
    arrived = asyncio.Event()

    async def never(_: web.Request) -> web.Response:
        arrived.set()
        await asyncio.sleep(60)
        return web.Response()

    await rig.app(rig.routes.add("abc").address, never, GUEST_PORT)
    async with rig.raw() as raw:
        await raw.send("GET / HTTP/1.1\r\nHost: 49983-abc.any.test\r\n\r\n")
        await arrived.wait()
        rig.routes.kill("abc")
        assert (await raw.head()).startswith("HTTP/1.1 502")


@pytest.mark.threat("B6")
async def test_a_new_life_of_a_sandbox_gets_no_connection_of_the_old_one(rig: Rig) -> None:
    async def who(request: web.Request) -> web.Response:
        assert request.transport is not None
        return web.Response(text=request.transport.get_extra_info("sockname")[0])

    first = rig.routes.add("abc").address
    await rig.app(first, who, GUEST_PORT)
    assert (await rig.client.get(rig.url, headers=to("abc"))).text == first
    second = rig.routes.add("abc").address  # resumed elsewhere, and nobody said that the old one was gone
    await rig.app(second, who, GUEST_PORT)
    assert (await rig.client.get(rig.url, headers=to("abc"))).text == second


async def test_an_idle_websocket_is_cut(
    rig: Rig, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.app(rig.routes.add("abc").address, echo, PORT)
    async with asyncio.timeout(DEADLINE), session.ws_connect(rig.url, headers=to("abc", PORT)) as socket:
        monkeypatch.setattr(limits, "GATEWAY_IDLE_S", -1.0)
        rig.gateway._sweep()
        assert (await socket.receive()).type in (WSMsgType.CLOSED, WSMsgType.ERROR)
