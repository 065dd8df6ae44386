"""What the gateway counts: requests by kind and outcome, what is open, bytes both ways."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from tests.integration.gateway_rig import DEADLINE, DOMAIN, GUEST_PORT, Rig, read_head, to
from warren.model import limits

pytestmark = pytest.mark.anyio


def numbers(rig: Rig) -> list[str]:
    return rig.meters.render().decode().splitlines()


async def shown(rig: Rig, *lines: str) -> None:
    """A client may have its answer before the gateway has put the request away."""
    async with asyncio.timeout(DEADLINE):
        while set(lines) - set(numbers(rig)):
            await asyncio.sleep(0.005)


def relays(kind: str, outcome: str, count: int) -> str:
    return f'warren_gateway_relays_total{{kind="{kind}",outcome="{outcome}"}} {float(count)}'


def carried(inward: int, outward: int) -> tuple[str, str]:
    return tuple(
        f'warren_gateway_bytes_total{{direction="{direction}"}} {float(count)}'
        for direction, count in (("in", inward), ("out", outward))
    )


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=(await request.read()) * 2)


async def test_requests_and_the_bytes_of_their_bodies(rig: Rig) -> None:
    await rig.app(rig.routes.add("abc").address, echo, GUEST_PORT)
    for body in (b"", b"12345", bytes(400_000)):
        answer = await rig.client.post(rig.url, headers=to("abc"), content=body)
        assert len(answer.content) == 2 * len(body)
    await shown(rig, relays("http", "ok", 3), *carried(400_005, 800_010), "warren_gateway_relays_open 0.0")


async def test_chunks_count_without_their_frames(rig: Rig) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"1234"

    await rig.app(rig.routes.add("abc").address, echo, GUEST_PORT)
    assert (await rig.client.post(rig.url, headers=to("abc"), content=pieces())).content == b"1234" * 6
    await shown(rig, relays("http", "ok", 1), *carried(12, 24))


async def test_a_websocket_counts_while_it_is_open(rig: Rig) -> None:
    async def talk(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    await rig.app(rig.routes.add("abc").address, talk, GUEST_PORT)
    async with asyncio.timeout(DEADLINE), aiohttp.ClientSession() as session:
        async with session.ws_connect(rig.url, headers=to("abc")) as socket:
            await socket.send_str("hello")
            await socket.receive()
            masked, plain = 6 + 5, 2 + 5
            await shown(rig, "warren_gateway_relays_open 1.0", *carried(masked, plain))
        await shown(rig, "warren_gateway_relays_open 0.0", relays("ws", "ok", 1))


async def test_refusals_count_by_their_status(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GATEWAY_DIAL_BACKOFF_S", ())
    rig.routes.add("abc")
    rig.routes.add("closed", traffic_token="secret")
    for headers in (to("nosuch"), to("abc"), to("closed", 8000), {"Host": f"api.{DOMAIN}"}, {}):
        await rig.client.get(rig.url + "/any", headers=headers)
    await shown(
        rig,
        relays("none", "502", 1),
        relays("http", "502", 1),
        relays("none", "403", 1),
        relays("api", "502", 1),
        relays("none", "400", 1),
    )


async def test_an_answer_that_breaks_off_is_cut(rig: Rig) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    await rig.script(rig.routes.add("abc").address, half)
    async with rig.raw() as raw:
        await raw.send("GET / HTTP/1.1\r\nHost: 49983-abc.any.test\r\n\r\n")
        await raw.rest()
    await shown(rig, relays("http", "cut", 1), *carried(0, 4))


async def test_a_client_that_does_not_wait_has_left(rig: Rig) -> None:
    arrived = asyncio.Event()

    async def never(_: web.Request) -> web.Response:
        arrived.set()
        await asyncio.sleep(60)
        return web.Response()

    await rig.app(rig.routes.add("abc").address, never, GUEST_PORT)
    async with rig.raw() as raw:
        await raw.send("GET / HTTP/1.1\r\nHost: 49983-abc.any.test\r\n\r\n")
        async with asyncio.timeout(DEADLINE):
            await arrived.wait()
        await shown(rig, "warren_gateway_relays_open 1.0")
    await shown(rig, relays("http", "left", 1), "warren_gateway_relays_open 0.0")


async def test_what_clients_choose_is_no_label(rig: Rig) -> None:
    await rig.app(rig.routes.add("isecret").address, echo, GUEST_PORT)
    await rig.client.request("POST", rig.url + "/isecret", headers=to("isecret"))
    await shown(rig, relays("http", "ok", 1))
    assert "secret" not in "".join(numbers(rig))
