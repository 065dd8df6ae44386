"""HTTP through the gateway: what arrives, what comes back, and when."""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.integration.gateway_rig import DEADLINE, GUEST_PORT, Rig, read_head, running_gateway, to
from warren.model import limits
from warren.model.audit import Kind

pytestmark = pytest.mark.anyio


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def mirror(request: web.Request) -> web.Response:
    body = await request.read()
    return web.json_response(
        {
            "method": request.method,
            "target": request.raw_path,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body": body.hex(),
        }
    )


async def test_a_request_arrives_as_it_was_sent(rig: Rig) -> None:
    await rig.app(rig.routes.add("abc").address, mirror, GUEST_PORT)
    async with rig.raw() as raw:
        await raw.send(
            "PATCH //a%2Fb/../c?x=%20+y&&z HTTP/1.1\r\nHost: 49983-abc.any.test\r\nX-Own: 1\r\n"
            "X-Warren-Control: forged\r\nE2b-Traffic-Access-Token: secret\r\nTE: trailers\r\n"
            "X-Forwarded-For: forged\r\n"
            "Connection: close, X-Hop\r\nX-Hop: 1\r\nContent-Length: 3\r\n\r\nabc"
        )
        head, _, body = (await raw.rest()).partition(b"\r\n\r\n")
    seen = json.loads(body)
    assert len(seen["headers"].pop("x-request-id")) == 16, "the guest learns whose request it is"
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert (seen["method"], seen["target"], seen["body"]) == ("PATCH", "//a%2Fb/../c?x=%20+y&&z", b"abc".hex())
    assert seen["headers"] == {
        "host": "49983-abc.any.test",
        "x-own": "1",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-host": "49983-abc.any.test",
        "x-forwarded-proto": "http",
        "connection": "keep-alive",
        "content-length": "3",
    }


async def test_compressed_bodies_pass_untouched(rig: Rig) -> None:
    packed = gzip.compress(b"hello" * 100)

    async def serve(request: web.Request) -> web.Response:
        assert await request.read() == packed
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    await rig.app(rig.routes.add("abc").address, serve, GUEST_PORT)
    headers = to("abc", **{"Content-Encoding": "gzip"})
    async with rig.client.stream("POST", rig.url, content=packed, headers=headers) as answer:
        assert b"".join([part async for part in answer.aiter_raw()]) == packed
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["content-length"] == str(len(packed))


async def test_a_chunked_body_without_a_length_arrives(rig: Rig) -> None:
    await rig.app(rig.routes.add("abc").address, mirror, GUEST_PORT)

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 300_000
            await asyncio.sleep(0)

    answer = await rig.client.post(rig.url, content=parts(), headers=to("abc"))
    assert len(answer.json()["body"]) == 2 * 900_000


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [("HEAD", 200, {"Content-Length": "5"}), ("GET", 204, {}), ("GET", 304, {"ETag": '"x"'})],
)
async def test_answers_without_a_body_leave_the_connection_usable(
    rig: Rig, method: str, status: int, headers: dict[str, str]
) -> None:
    async def serve(_: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers)

    await rig.app(rig.routes.add("abc").address, serve, GUEST_PORT)
    async with rig.raw() as raw:
        for _ in range(2):
            await raw.send(f"{method} / HTTP/1.1\r\nHost: 49983-abc.any.test\r\n\r\n")
            head = await raw.head()
            assert head.startswith(f"HTTP/1.1 {status} ")
            assert all(f"{name}: {value}" in head for name, value in headers.items())


async def test_each_piece_of_a_stream_is_passed_on_at_once(rig: Rig) -> None:
    turns = asyncio.Event(), asyncio.Event()

    async def serve(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await turns[0].wait()
        await response.write(b"one")
        await turns[1].wait()
        await response.write(b"two")
        return response

    await rig.app(rig.routes.add("abc").address, serve, GUEST_PORT)
    async with rig.client.stream("GET", rig.url, headers=to("abc")) as answer:
        pieces = answer.aiter_raw()
        turns[0].set()
        assert await anext(pieces) == b"one"
        turns[1].set()
        assert await anext(pieces) == b"two"


async def test_both_directions_stream_at_the_same_time(rig: Rig) -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece.upper())
        return response

    await rig.app(rig.routes.add("abc").address, serve, GUEST_PORT)
    async with rig.raw() as raw:
        await raw.send("POST / HTTP/1.1\r\nHost: 49983-abc.any.test\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert "200 OK" in await raw.head()
        for piece in ("a", "b"):
            await raw.send(f"1\r\n{piece}\r\n")
            assert await raw.exactly(6) == f"1\r\n{piece.upper()}\r\n".encode()


async def test_a_client_that_leaves_is_noticed_inside(rig: Rig) -> None:
    started, left = asyncio.Event(), asyncio.Event()

    async def serve(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            left.set()
        return response

    await rig.app(rig.routes.add("abc").address, serve, GUEST_PORT)
    async with rig.raw() as raw:
        await raw.send("GET / HTTP/1.1\r\nHost: 49983-abc.any.test\r\n\r\n")
        await raw.head()
        await started.wait()
    async with asyncio.timeout(DEADLINE):
        await left.wait()


async def test_a_slow_reader_holds_back_the_writer(rig: Rig) -> None:
    written = 0
    stuck = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            written += 65536
            try:
                async with asyncio.timeout(1):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                return

    await rig.script(rig.routes.add("abc").address, serve)
    async with rig.raw() as raw:
        await raw.send("GET / HTTP/1.1\r\nHost: 49983-abc.any.test\r\n\r\n")
        async with asyncio.timeout(20):
            await stuck.wait()
    assert written < 64 << 20


async def test_a_client_waits_for_100_and_gets_it_only_from_a_live_sandbox(rig: Rig) -> None:
    await rig.app(rig.routes.add("abc").address, mirror, GUEST_PORT)
    head = "POST / HTTP/1.1\r\nHost: 49983-{}.any.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    async with rig.raw() as raw:
        await raw.send(head.format("abc"))
        assert (await raw.head()).startswith("HTTP/1.1 100 ")
        await raw.send("ok")
        assert (await raw.head()).startswith("HTTP/1.1 200 ")
    async with rig.raw() as raw:
        await raw.send(head.format("dead"))
        assert (await raw.head()).startswith("HTTP/1.1 502 ")


async def test_an_early_answer_reaches_a_client_that_still_sends(rig: Rig) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    await rig.script(rig.routes.add("abc").address, serve)
    async with rig.raw() as raw:
        await raw.send("POST / HTTP/1.1\r\nHost: 49983-abc.any.test\r\nContent-Length: 1000000\r\n\r\nx")
        assert (await raw.head()).startswith("HTTP/1.1 413 ")


async def test_connections_to_the_guest_are_kept_and_those_to_ports_are_not(rig: Rig) -> None:
    peers: list[object] = []

    async def serve(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return web.Response(text="x", headers={"X-Said": request.headers["Connection"]})

    address = rig.routes.add("abc").address
    for port, kept in ((GUEST_PORT, 1), (8000, 3)):
        await rig.app(address, serve, port)
        peers.clear()
        for _ in range(3):
            assert (await rig.client.get(rig.url, headers=to("abc", port))).text == "x"
        assert len(set(peers)) == kept


async def test_the_mask_replaces_the_host_for_ports_and_not_for_the_guest(rig: Rig) -> None:
    address = rig.routes.add("abc", mask_host="localhost:${PORT}").address
    for port, host in ((8000, "localhost:8000"), (GUEST_PORT, f"{GUEST_PORT}-abc.any.test")):
        await rig.app(address, mirror, port)
        headers = (await rig.client.get(rig.url, headers={"Host": f"{port}-abc.any.test"})).json()["headers"]
        assert (headers["host"], headers["x-forwarded-host"]) == (host, f"{port}-abc.any.test")


async def test_a_private_port_wants_its_token_and_keeps_it_from_the_service(rig: Rig) -> None:
    address = rig.routes.add("abc", traffic_token="right").address
    for port in (8000, GUEST_PORT):
        await rig.app(address, mirror, port)
    tried = {
        token: await rig.client.get(
            rig.url, headers=to("abc", 8000, **({"E2B-Traffic-Access-Token": token} if token else {}))
        )
        for token in ("", "wrong", "right")
    }
    assert {token: answer.status_code for token, answer in tried.items()} == {"": 403, "wrong": 403, "right": 200}
    assert tried["wrong"].json()["code"] == 403
    assert "e2b-traffic-access-token" not in tried["right"].json()["headers"]
    assert (await rig.client.get(rig.url, headers=to("abc"))).status_code == 200
    noted = [(event.kind, event.rule, event.subject) for event in rig.audit.events]
    assert noted == [
        (Kind.TRAFFIC_REFUSED, f"{what}_traffic_access_token", "sandbox:abc") for what in ("missing", "invalid")
    ]
    assert "wrong" not in repr(rig.audit.events)


async def test_the_guest_gets_a_plain_request_id_and_a_service_only_the_client_s_own(rig: Rig) -> None:
    address = rig.routes.add("abc").address
    for port in (8000, GUEST_PORT):
        await rig.app(address, mirror, port)
    for port, given, seen in (
        (GUEST_PORT, "mine", "mine"),
        (GUEST_PORT, "not plain", None),
        (8000, "not plain", "not plain"),
        (8000, None, None),
    ):
        headers = to("abc", port, **({"X-Request-Id": given} if given else {}))
        got = (await rig.client.get(rig.url, headers=headers)).json()["headers"].get("x-request-id")
        assert got == seen or (port == GUEST_PORT and seen is None and len(got) == 16), (port, given)


@pytest.mark.parametrize("path", ["/init", "//init", "/x/%2e%2e/init", "/%69nit", "/warren/tunnel?port=1", "/FREEZE;a"])
async def test_control_routes_are_not_there(rig: Rig, path: str) -> None:
    await rig.app(rig.routes.add("abc").address, mirror, GUEST_PORT)
    async with rig.raw() as raw:
        await raw.send(f"POST {path} HTTP/1.1\r\nHost: 49983-abc.any.test\r\nContent-Length: 0\r\n\r\n")
        assert (await raw.head()).startswith("HTTP/1.1 404 ")


async def test_a_port_may_have_a_route_called_init(rig: Rig) -> None:
    await rig.app(rig.routes.add("abc").address, mirror, 8000)
    assert (await rig.client.get(rig.url + "/init", headers=to("abc", 8000))).status_code == 200


@pytest.mark.threat("C5")
async def test_too_many_at_once_are_refused_and_others_served(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GATEWAY_CONNECTIONS_PER_SANDBOX", 2)
    release = asyncio.Event()
    waiting: list[asyncio.Event] = [asyncio.Event(), asyncio.Event()]
    arrived = iter(waiting)

    async def serve(_: web.Request) -> web.Response:
        next(arrived).set()
        await release.wait()
        return web.Response()

    await rig.app(rig.routes.add("abc").address, serve, GUEST_PORT)
    await rig.app(rig.routes.add("other").address, mirror, GUEST_PORT)
    async with asyncio.TaskGroup() as group:
        held = [group.create_task(rig.client.get(rig.url, headers=to("abc"))) for _ in range(2)]
        for event in waiting:
            await event.wait()
        refused = await rig.client.get(rig.url, headers=to("abc"))
        assert (refused.status_code, refused.headers["should-retry"]) == (429, "false")
        assert (await rig.client.get(rig.url, headers=to("other"))).status_code == 200
        release.set()
    assert [task.result().status_code for task in held] == [200, 200]


async def test_an_idle_relay_is_cut(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    started = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        started.set()
        await reader.read()

    await rig.script(rig.routes.add("abc").address, serve)
    async with rig.raw() as raw:
        await raw.send("GET / HTTP/1.1\r\nHost: 49983-abc.any.test\r\n\r\n")
        await raw.head()
        assert await raw.exactly(2) == b"ab"
        monkeypatch.setattr(limits, "GATEWAY_IDLE_S", -1.0)
        rig.gateway._sweep()
        assert await raw.rest() == b""


async def test_an_old_client_gets_its_answer_up_to_the_end_of_the_connection(rig: Rig) -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"body")
        return response

    await rig.app(rig.routes.add("abc").address, serve, GUEST_PORT)
    async with rig.raw() as raw:
        await raw.send("GET / HTTP/1.0\r\nHost: 49983-abc.any.test\r\nConnection: keep-alive\r\n\r\n")
        head, _, body = (await raw.rest()).partition(b"\r\n\r\n")
    assert body == b"body"
    assert b"chunked" not in head


async def test_bytes_of_a_header_are_nobodys_text(rig: Rig) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert b"X-In: gr\xfc\xdfe" in head
        writer.write(b"HTTP/1.1 200 OK\r\nX-Out: caf\xe9\r\nContent-Length: 0\r\n\r\n")

    await rig.script(rig.routes.add("abc").address, serve)
    async with rig.raw() as raw:
        await raw.send(b"GET / HTTP/1.1\r\nHost: 49983-abc.any.test\r\nX-In: gr\xfc\xdfe\r\n\r\n")
        assert "X-Out: caf\xe9" in await raw.head()


async def test_dead_and_closed_are_told_apart(rig: Rig) -> None:
    rig.routes.add("abc")
    rig.routes.elsewhere["far"] = "machine-2"
    dead = await rig.client.get(rig.url, headers=to("nope", 8000))
    away = await rig.client.get(rig.url, headers=to("far", 8000))
    closed = await rig.client.get(rig.url, headers=to("abc", 8000))
    assert (dead.status_code, dead.json()["message"]) == (502, "The sandbox was not found")
    assert (away.status_code, away.json()["message"]) == (502, "The sandbox is on another server: machine-2")
    assert (closed.status_code, closed.json()["port"]) == (502, 8000)
    assert "port is not open" in closed.json()["message"]


@pytest.mark.parametrize(("ends", "message"), [(True, "was not found"), (False, "closed the connection")])
async def test_a_guest_that_hangs_up_is_dead_when_news_of_its_end_follow(rig: Rig, ends: bool, message: str) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        if ends:
            asyncio.get_running_loop().call_later(0.1, rig.routes.kill, "abc")

    await rig.script(rig.routes.add("abc").address, hang_up)
    answer = await rig.client.get(f"{rig.url}/health", headers=to("abc"))
    assert answer.status_code == 502
    assert message in answer.json()["message"]


async def test_a_server_that_is_just_starting_is_waited_for(rig: Rig) -> None:
    address = rig.routes.add("abc").address
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(rig.client.get(rig.url, headers=to("abc", 8000)))
        await asyncio.sleep(0.05)
        await rig.app(address, mirror, 8000)
    assert asking.result().status_code == 200


async def test_the_api_is_behind_its_name(unused_tcp_port: int) -> None:
    async with running_gateway(api_port=unused_tcp_port) as rig:
        host = {"Host": "api.e2b.localhost:3443", **to("abc")}
        assert (await rig.client.get(rig.url + "/health", headers=host)).json()["code"] == 502
        await rig.app("127.0.0.1", mirror, unused_tcp_port)
        seen = (await rig.client.post(rig.url + "/v2/sandboxes", headers=host, content=b"{}")).json()
        assert (seen["method"], seen["target"], seen["headers"]["host"]) == ("POST", "/v2/sandboxes", host["Host"])


async def test_nothing_is_left_open_after_many_requests(rig: Rig) -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        if request.path == "/slow":
            await asyncio.sleep(60)
        return web.Response(body=await request.read())

    route = rig.routes.add("abc")
    await rig.app(route.address, serve, GUEST_PORT)
    await rig.app(route.address, serve, 8000)

    async def ask(number: int) -> None:
        port = (GUEST_PORT, 8000)[number % 2]
        if number % 5 == 0:
            async with rig.raw() as raw:
                await raw.send(f"POST /slow HTTP/1.1\r\nHost: {port}-abc.any.test\r\nContent-Length: 9\r\n\r\nx")
        else:
            answer = await rig.client.post(rig.url, headers=to("abc", port), content=b"x" * number * 999)
            assert len(answer.content) == number * 999

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(ask(number))
    link = rig.gateway._links.to(route)
    async with asyncio.timeout(DEADLINE):
        while link.relays or len(link.upstreams) > limits.GATEWAY_POOL_PER_SANDBOX:
            await asyncio.sleep(0.01)
    rig.routes.kill("abc")
    async with asyncio.timeout(DEADLINE):
        while link.upstreams:
            await asyncio.sleep(0.01)
