"""The way out of what fetches images: whom it lets through, and that the address judged is the one dialled."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from warren.images.relay import Relay, is_public

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("address", ["1.1.1.1", "151.101.1.69", "2606:4700::1111"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "198.18.0.1",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1", "::ffff:10.0.0.1",
        "::ffff:127.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2001:0:0:0:0:0:f5ff:fffe", "nonsense",
    ],
)  # fmt: skip
def test_addresses_that_are_not_the_internet_s(address: str) -> None:
    assert not is_public(address)


@asynccontextmanager
async def relayed(*trusted: tuple[str, int]) -> AsyncIterator[tuple[Relay, int]]:
    relay = Relay(frozenset(trusted))
    listener = socket.create_server(("127.0.0.1", 0))
    await relay.proxy(listener)
    try:
        yield relay, listener.getsockname()[1]
    finally:
        await relay.close()


@asynccontextmanager
async def echo() -> AsyncIterator[tuple[str, int]]:
    """Answers with what it was sent, until the other side has sent all."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            writer.write(await reader.readuntil(b"\n\r\n") + b"|")
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()


async def say(port: int, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    writer.write_eof()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


async def test_a_tunnel_to_a_listed_place() -> None:
    async with echo() as place, relayed(place) as (relay, port):
        answer = await say(port, f"CONNECT 127.0.0.1:{place[1]} HTTP/1.1\r\n\r\nhello\n\r\nmore".encode())
        assert answer == b"HTTP/1.1 200 Connection established\r\n\r\nhello\n\r\n|more"
        assert relay.refusals == []


async def test_a_plain_request_becomes_one_of_its_own() -> None:
    async with echo() as place, relayed(place) as (_, port):
        asked = f"GET http://127.0.0.1:{place[1]}/v2/?a=b HTTP/1.1\r\nHost: x\r\nProxy-Connection: keep-alive\r\n\r\n"
        answer = await say(port, asked.encode())
        assert answer == b"GET /v2/?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n|"


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "0x7f.1"])
async def test_other_places_are_refused(name: str) -> None:
    async with echo() as place, relayed(("127.0.0.1", place[1] + 1)) as (relay, port):
        answer = await say(port, f"CONNECT {name}:{place[1]} HTTP/1.1\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert len(relay.refusals) == 1
        assert "no public address" in relay.refusals[0]


@pytest.mark.parametrize(
    "head",
    [
        b"", b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET ftp://x/ HTTP/1.1\r\n\r\n", b"x" * 100_000,
        b"CONNECT :x HTTP/1.1\r\n\r\n", b"CONNECT [ HTTP/1.1\r\n\r\n", b"CONNECT \xff HTTP/1.1\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\n\r\n",
    ],
    ids=range(10),
)  # fmt: skip
async def test_nonsense_is_answered_with_an_error(head: bytes) -> None:
    async with relayed() as (_, port):
        assert (await say(port, head))[:12] in (b"HTTP/1.1 403", b"HTTP/1.1 502")


async def test_a_closed_relay_leaves_no_connection() -> None:
    async with echo() as place, relayed(place) as (relay, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"CONNECT 127.0.0.1:{place[1]} HTTP/1.1\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        await relay.close()
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
