"""Services that only the guest can reach, signed URLs, and TLS."""

import asyncio

import pytest

from tests.integration.gateway_rig import Rig, Script, read_head, to
from warren.model import limits

pytestmark = pytest.mark.anyio
PORT = 8000


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GATEWAY_DIAL_BACKOFF_S", ())


async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await read_head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))
    await writer.drain()


def tunnel(heads: list[bytes], answer: bytes, then: Script = service) -> Script:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        writer.write(answer)
        await then(reader, writer)

    return serve


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: warren-tunnel\r\n\r\n"


async def test_a_loopback_service_is_reached_through_the_guest(rig: Rig) -> None:
    heads: list[bytes] = []
    await rig.script(rig.routes.add("abc", control_token="ours").address, tunnel(heads, SWITCH))
    answer = await rig.client.get(rig.url + "/path", headers=to("abc", PORT))
    assert answer.status_code == 200
    assert answer.text.startswith("GET /path HTTP/1.1\r\n")
    assert "ours" not in answer.text
    assert heads[0].startswith(b"GET /warren/tunnel?port=8000 HTTP/1.1\r\n")
    assert b"\r\nUpgrade: warren-tunnel\r\n" in heads[0]
    assert b"\r\nX-Warren-Control: ours\r\n" in heads[0]


async def test_a_service_that_speaks_first_loses_no_byte(rig: Rig) -> None:
    async def hasty(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_head(reader)

    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhasty"
    await rig.script(rig.routes.add("abc").address, tunnel([], SWITCH + answer, hasty))
    assert (await rig.client.get(rig.url, headers=to("abc", PORT))).text == "hasty"


async def nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 1010\r\n\r\n",
        b"rubbish\r\n\r\n",
        b"x" * 100_000,
    ],
)
async def test_whatever_else_the_guest_says_is_a_closed_port(rig: Rig, answer: bytes) -> None:
    await rig.script(rig.routes.add("abc").address, tunnel([], answer, nothing))
    got = await rig.client.get(rig.url, headers=to("abc", PORT))
    assert (got.status_code, got.json()["port"]) == (502, PORT)
    assert "port is not open" in got.json()["message"]


@pytest.mark.usefixtures("no_backoff")
async def test_a_guest_that_never_answers_has_a_deadline(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GATEWAY_CONNECT_DEADLINE_S", 0.1)
    await rig.script(rig.routes.add("abc").address, tunnel([], b"HTTP/1.1 1", nothing))
    assert "port is not open" in (await rig.client.get(rig.url, headers=to("abc", PORT))).text


async def test_a_tunnel_ends_with_its_sandbox(rig: Rig) -> None:
    arrived = asyncio.Event()

    async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_head(reader)
        arrived.set()
        await reader.read()

    await rig.script(rig.routes.add("abc").address, tunnel([], SWITCH, never))
    async with rig.raw() as raw:
        await raw.send("GET / HTTP/1.1\r\nHost: 8000-abc.any.test\r\n\r\n")
        await arrived.wait()
        rig.routes.kill("abc")
        assert (await raw.head()).startswith("HTTP/1.1 502")
