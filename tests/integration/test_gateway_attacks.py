"""What a hostile client, or a hostile sandbox, says to the gateway."""

import asyncio
from contextlib import suppress

import pytest
from aiohttp import web

from tests.integration.gateway_rig import DEADLINE, GUEST_PORT, Rig, Script, read_head, to
from warren.model import limits

pytestmark = [pytest.mark.threat("B7"), pytest.mark.anyio]
HOST = "Host: 49983-abc.any.test\r\n"
SMUGGLED = f"GET /smuggled HTTP/1.1\r\n{HOST}\r\n"


class Seen:
    """Counts what reaches the sandbox."""

    def __init__(self) -> None:
        self.targets: list[str] = []

    async def serve(self, request: web.Request) -> web.Response:
        self.targets.append(request.raw_path)
        return web.Response(text=(await request.read()).decode("latin-1"))


@pytest.fixture
async def seen(rig: Rig) -> Seen:
    seen = Seen()
    await rig.app(rig.routes.add("abc").address, seen.serve, GUEST_PORT)
    return seen


BODY = "\r\n5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "text",
    [
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n{BODY}",
        f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n{BODY}",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: 5, 5\r\n\r\nhello",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: +5\r\n\r\nhello",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: 5 \x0b\r\n\r\nhello",
        f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, chunked\r\n{BODY}",
        f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked, identity\r\n{BODY}",
        f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: xchunked\r\n{BODY}",
        f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n{BODY}",
        f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding : chunked\r\n{BODY}",
        f"POST / HTTP/1.1\r\n{HOST}X: 1\r\n Transfer-Encoding: chunked\r\n{BODY}",
        f"POST / HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n{BODY}",
        f"GET / HTTP/1.1\r\n{HOST}{HOST}\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 49983-abc.any.test/x\r\n\r\n",
        f"GET http://other.test/ HTTP/1.1\r\n{HOST}\r\n",
        f"GET http://x@49983-abc.any.test/ HTTP/1.1\r\n{HOST}\r\n",
        f"GET /#frag HTTP/1.1\r\n{HOST}\r\n",
        f"GET * HTTP/1.1\r\n{HOST}\r\n",
        f"CONNECT 49983-abc.any.test:80 HTTP/1.1\r\n{HOST}\r\n",
        f"GET / HTTP/1.1\r\n{HOST}X\0Y: 1\r\n\r\n",
        f"GET / HTTP/1.1\r\n{HOST}X: a\0b\r\n\r\n",
        f"GET / HTTP/1.1\r\n{HOST}X: a\rb\r\n\r\n",
        f"GET / HTTP/1.1\n{HOST}\n",
        f"GET / HTTP/3.7\r\n{HOST}\r\n",
        f"GET /\x01 HTTP/1.1\r\n{HOST}\r\n",
        f"GET / HTTP/1.1\r\n{HOST}Expect: the-unexpected\r\n\r\n",
        f"GET / HTTP/1.1\r\n{HOST}X: {'a' * 20_000}\r\n\r\n",
        f"GET /{'a' * 40_000} HTTP/1.1\r\n{HOST}\r\n",
        f"GET / HTTP/1.1\r\n{HOST}" + "X: 1\r\n" * 200 + "\r\n",
        f"GET / HTTP/1.1\r\n{HOST}" + f"X: {'a' * 15_000}\r\n" * 5 + "\r\n",
        f"GET / HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /\r\n",
        f"GET /a b HTTP/1.1\r\n{HOST}\r\n",
        f"GET /\xa0 HTTP/1.1\r\n{HOST}X\xa0: 1\r\n\r\n",
        f" GET / HTTP/1.1\r\n{HOST}\r\n",
        f"GET / HTTP/1.1 \r\n {HOST}\r\n",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: 0x5\r\n\r\nhello",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: 5_0\r\n\r\nhello",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: -1\r\n\r\nhello",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: {'9' * 40}\r\n\r\nhello",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length:\r\n\r\nhello",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\tX\r\n\r\nhello",
        f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n , identity\r\n{BODY}",
        f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: \x0bchunked\r\n{BODY}",
        f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked;q=1\r\n{BODY}",
        f'POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: "chunked"\r\n{BODY}',
        f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding:\r\n{BODY}",
        f"GET / HTTP/1.1\r\n{HOST}: nameless\r\n\r\n",
        f"GET / HTTP/1.1\r\n{HOST}X\r\n\r\n",
        f"GET / HTTP/1.1\r\n{HOST}X Y: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 49983-abc.any.test, 49983-abc.any.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 49983-abc.any.test:99999999\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
    ],
)
async def test_what_could_be_read_in_two_ways_reaches_no_sandbox(rig: Rig, seen: Seen, text: str) -> None:
    async with rig.raw() as raw:
        await raw.send(text + SMUGGLED)
        answer = await raw.rest()
    assert seen.targets == []
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert b'"code": 4' in answer
    assert answer.count(b"HTTP/1.") == 1


@pytest.mark.parametrize(
    "body",
    [
        "5;x=\r\nhello\r\nzz\r\n",
        "-1\r\n\r\n",
        "5\r\nhelloXX",
        "FFFFFFFFFFFFFFFFFF\r\n",
        "5\nhello\n0\n\n",
        "0x5\r\nhello\r\n",
        "5 \nhello\r\n",
        "+5\r\nhello\r\n",
        "\r\n5\r\nhello\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "0\r\n X: folded\r\n\r\n",
        "0\r\nX\r\n\r\n",
    ],
)
async def test_broken_chunks_end_the_connection(rig: Rig, seen: Seen, body: str) -> None:
    async with rig.raw() as raw:
        await raw.send(f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{body}\r\n{SMUGGLED}")
        answer = await raw.rest()
    assert "/smuggled" not in seen.targets
    assert b"200 OK" not in answer


async def test_requests_behind_each_other_are_answered_in_order(rig: Rig, seen: Seen) -> None:
    one = f"POST /{{}} HTTP/1.1\r\n{HOST}Content-Length: 1\r\n\r\n{{}}"
    async with rig.raw() as raw:
        await raw.send("".join(one.format(n, n) for n in range(3)))
        for n in range(3):
            await raw.head()
            assert await raw.exactly(1) == str(n).encode()
    assert seen.targets == ["/0", "/1", "/2"]


@pytest.mark.parametrize("upgrade", ["h2c", "warren-tunnel", "TLS/1.0"])
async def test_other_upgrades_are_not_passed_on(rig: Rig, upgrade: str) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    await rig.script(rig.routes.add("abc").address, serve)
    async with rig.raw() as raw:
        await raw.send(f"GET / HTTP/1.1\r\n{HOST}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\r\n")
        assert (await raw.head()).startswith("HTTP/1.1 200")
    assert b"upgrade" not in heads[0].lower()


async def test_a_declined_websocket_leaves_no_door_open(rig: Rig, seen: Seen) -> None:
    async with rig.raw() as raw:
        await raw.send(
            f"GET /ws HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            f"POST /init HTTP/1.1\r\n{HOST}Content-Length: 0\r\n\r\n"
        )
        answer = await raw.rest()
    assert seen.targets == ["/ws"]
    assert b"connection: close" in answer.lower()


async def test_a_client_that_says_nothing_is_dropped(rig: Rig, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GATEWAY_HEAD_DEADLINE_S", 0.05)
    async with rig.raw() as slow:
        await slow.send("GET / HTTP/1.1\r\nHost: 49983-abc")
        assert await slow.rest() == b""
    async with rig.raw() as quick:
        await quick.send(f"GET / HTTP/1.1\r\n{HOST}\r\n")
        assert "200 OK" in await quick.head()
        await asyncio.sleep(0.1)
        await quick.send(f"GET / HTTP/1.1\r\n{HOST}\r\n")
        assert "200 OK" in await quick.head()


async def test_a_client_that_lets_its_next_head_drip_is_dropped(
    rig: Rig, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig.raw() as slow, rig.raw() as idle:
        for client in (slow, idle):
            await client.send(f"GET / HTTP/1.1\r\n{HOST}\r\n")
            assert "200 OK" in await client.head()
        monkeypatch.setattr(limits, "GATEWAY_HEAD_DEADLINE_S", 0.05)
        await slow.send("GET / HTTP/1.1\r\nHost: 49983-abc")
        assert await slow.rest() == b""
        await idle.send(f"GET / HTTP/1.1\r\n{HOST}\r\n")
        assert "200 OK" in await idle.head()


async def test_there_is_a_limit_to_clients(rig: Rig, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GATEWAY_CLIENT_CONNECTIONS", 1)
    async with rig.raw() as first:
        await first.send(f"GET / HTTP/1.1\r\n{HOST}\r\n")
        await first.head()
        async with rig.raw() as second:
            assert await second.rest() == b""
        await first.send(f"GET / HTTP/1.1\r\n{HOST}\r\n")
        assert "200 OK" in await first.head()


def says(answer: bytes) -> Script:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer)
        await writer.drain()

    return serve


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"rubbish\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40,
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rInjected: b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 500 + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 9999 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_an_answer_that_is_none_becomes_a_502(rig: Rig, answer: bytes) -> None:
    await rig.script(rig.routes.add("abc").address, says(answer))
    got = await rig.client.get(rig.url, headers=to("abc"))
    assert got.status_code == 502
    assert got.json()["code"] == 502
    assert "injected" not in got.headers


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ],
)
async def test_an_answer_that_stops_half_way_never_looks_whole(rig: Rig, answer: bytes) -> None:
    await rig.script(rig.routes.add("abc").address, says(answer))
    async with rig.raw() as raw:
        await raw.send(f"GET / HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n")
        received = await raw.rest()
    assert b"200 OK" not in received or not received.endswith(b"0\r\n\r\n")
    assert received == b"" or received.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 502 "))


@pytest.mark.parametrize("then", [b"zz\r\n", b"-5\r\n", b"FFFFFFFFFFFFFFFFFFFFF\r\n", b"5\r\nhelloX", b""])
async def test_a_stream_that_breaks_later_is_cut_at_once(rig: Rig, then: bytes) -> None:
    broken = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await broken.wait()
        writer.write(then)
        if then:
            await reader.read()

    await rig.script(rig.routes.add("abc").address, serve)
    async with rig.raw() as raw:
        await raw.send(f"GET / HTTP/1.1\r\n{HOST}\r\n")
        await raw.head()
        assert await raw.exactly(10) == b"5\r\nhello\r\n"
        broken.set()
        assert not (await raw.rest()).endswith(b"0\r\n\r\n")


async def test_an_answer_before_its_question_is_nobodys_answer(rig: Rig) -> None:
    closed: list[asyncio.Event] = []

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = asyncio.Event()
        closed.append(mine)
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nreal")
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
        try:
            await reader.read()
        finally:
            mine.set()

    await rig.script(rig.routes.add("abc").address, hasty)
    for _ in range(2):
        assert (await rig.client.get(rig.url, headers=to("abc"))).text == "real"
        await asyncio.sleep(0.1)
    assert closed[0].is_set()


async def test_broken_chunks_end_the_sandbox_s_side_too(rig: Rig) -> None:
    ended = asyncio.Event()

    async def patient(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65536):
                pass
        finally:
            ended.set()

    await rig.script(rig.routes.add("abc").address, patient)
    async with rig.raw() as raw:
        await raw.send(f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await asyncio.sleep(0.05)
        await raw.send("zz\r\n")
        async with asyncio.timeout(DEADLINE):
            await ended.wait()
        assert b" 400 " in await raw.rest()


async def test_bytes_behind_an_answer_are_nobodys_answer(rig: Rig) -> None:
    extra = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    await rig.script(rig.routes.add("abc").address, says(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nreal" + extra))
    for _ in range(3):
        assert (await rig.client.get(rig.url, headers=to("abc"))).text == "real"


NAMES = (
    "..", "%2e%2e", "abc/../xyz", "abc%2fxyz", "ABC%00", "abc%00", "\u0430bc", "a" * 64, "a" * 5000, "abc\tx", "", "*",
    "abc xyz", "abc,xyz", "_abc", "abc;", "abc@x",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
async def test_an_id_is_letters_and_digits_or_nothing(rig: Rig, seen: Seen, name: str) -> None:
    for head in (
        f"GET / HTTP/1.1\r\nHost: localhost\r\nE2b-Sandbox-Id: {name}\r\nE2b-Sandbox-Port: 49983\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: 49983-{name}.any.test\r\n\r\n",
    ):
        async with rig.raw() as raw:
            await raw.send(head.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))
            assert (await raw.rest()).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ", b"HTTP/1.1 502 "))
    assert seen.targets == []


@pytest.mark.parametrize("port", ["0", "65536", "-1", "+1", "1e3", "0x50", "\u0661", "", "9" * 400, "49983,80"])
async def test_a_port_is_a_number_or_nothing(rig: Rig, seen: Seen, port: str) -> None:
    async with rig.raw() as raw:
        await raw.send(
            f"GET / HTTP/1.1\r\nHost: localhost\r\nE2b-Sandbox-Id: abc\r\nE2b-Sandbox-Port: {port}\r\n"
            "Connection: close\r\n\r\n"
        )
        answer = await raw.rest()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert seen.targets == []


CONTROL = (
    "/init", "//init", "/./init", "/x/../init", "/%69nit", "/%2569nit", "/INIT", "/init/", "/init;x", "/init%00",
    "/\\init", "/%2e/init", "/warren/tunnel?port=22", "/warren/logs", "/..%2finit", "/init%20", "/init%3fx",
)  # fmt: skip


@pytest.mark.parametrize("path", CONTROL)
@pytest.mark.parametrize("upgrade", ["websocket", "warren-tunnel", ""])
async def test_control_routes_are_for_nobody_outside(rig: Rig, seen: Seen, path: str, upgrade: str) -> None:
    """Not by an upgrade either, nor in absolute form, nor with headers that only the server sends."""
    extra = f"Connection: Upgrade\r\nUpgrade: {upgrade}\r\n" if upgrade else ""
    for target in (path, f"http://49983-abc.any.test{path}"):
        async with rig.raw() as raw:
            await raw.send(f"GET {target} HTTP/1.1\r\n{HOST}{extra}X-Warren-Control: control\r\n\r\n")
            assert (await raw.head()).split()[1] in {"404", "400"}
    assert seen.targets == []


async def test_a_client_s_own_control_and_forwarding_headers_are_not_passed_on(rig: Rig) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await read_head(reader)).lower())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    await rig.script(rig.routes.add("abc").address, serve)
    forged = "".join(
        f"{name}: forged\r\n"
        for name in (
            "X-Warren-Control",
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "X-Real-Ip",
            "Forwarded",
            "Te",
            "Trailer",
        )
    )
    async with rig.raw() as raw:
        await raw.send(f"GET / HTTP/1.1\r\n{HOST}{forged}Connection: close, x-forwarded-for, host\r\n\r\n")
        assert (await raw.head()).startswith("HTTP/1.1 200")
    assert b"forged" not in heads[0]
    assert b"host: 49983-abc.any.test" in heads[0]
    assert b"x-forwarded-for: 127.0.0.1" in heads[0]


@pytest.mark.parametrize(
    "bomb", [b"X: y\r\n", b"X: " + b"y" * 8000 + b"\r\n", b"y" * 65536], ids=["many", "big", "line"]
)
async def test_trailers_have_an_end(rig: Rig, seen: Seen, bomb: bytes) -> None:
    async with rig.raw() as raw:
        await raw.send(f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n")
        with suppress(ConnectionError):
            for _ in range(limits.GATEWAY_FIELDS_MAX + 2):
                await raw.send(bomb)
            await raw.send("\r\n" + SMUGGLED)
        answer = await raw.rest()
    assert "/smuggled" not in seen.targets
    assert b" 200 " not in answer


async def test_a_flood_of_requests_behind_each_other_waits_at_the_client(rig: Rig) -> None:
    """One stuck sandbox and 64 MiB of requests for it: the gateway stops reading, and others do not notice."""
    stuck = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await stuck.wait()

    await rig.script(rig.routes.add("abc").address, silent)
    flood = f"GET / HTTP/1.1\r\n{HOST}X: {'y' * 8000}\r\n\r\n".encode() * 128
    async with rig.raw() as raw:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                for _ in range(64):
                    raw.writer.write(flood)
                    await raw.writer.drain()
        assert (await rig.client.get(rig.url, headers=to("nobody"))).status_code == 502
        stuck.set()
        raw.writer.transport.abort()
