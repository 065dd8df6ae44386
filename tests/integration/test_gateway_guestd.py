"""The gateway before a real guestd, which runs here as an ordinary process."""

import asyncio
import os
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from tests.integration.gateway_rig import GUEST_PORT, Rig, to
from warren.contracts.guest import GuestIdentity
from warren.guest.guestd import GuestdClient

BINARY = Path(os.environ.get("GUESTD", Path(__file__).parents[2] / "guestd/bin/guestd"))
START_DEADLINE = 10.0
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not BINARY.exists(), reason="guestd is not built"),
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="guestd starts as root"),
]


@pytest.fixture
def address(rig: Rig) -> str:
    return rig.routes.add("abc", access_token="access", control_token="control").address


@pytest.fixture
def guestd(address: str, tmp_path: Path) -> Iterator[httpx.Client]:
    (tmp_path / "etc").mkdir()
    command = [BINARY, "-listen", f"{address}:{GUEST_PORT}", "-etc", tmp_path / "etc", "-run-dir", tmp_path / "run"]
    command += ["-warren-dir", tmp_path / "warren", "-keep-dir", tmp_path / "keep"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        with httpx.Client(base_url=f"http://{address}:{GUEST_PORT}", trust_env=False) as direct:
            wait_until_healthy(direct)
            settings = {"accessToken": "access", "controlToken": "control", "defaultUser": "root"}
            assert direct.post("/init", json=settings).status_code == 204
            yield direct
        process.terminate()


def wait_until_healthy(direct: httpx.Client) -> None:
    deadline = time.monotonic() + START_DEADLINE
    while time.monotonic() < deadline:
        try:
            if direct.get("/health").status_code == 204:
                return
        except httpx.TransportError:
            time.sleep(0.01)
    raise TimeoutError("cannot reach guestd; is it the right binary?")


class SetBack(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime.now(tz) - timedelta(hours=1)


@pytest.mark.threat("D3")
async def test_a_guest_is_told_its_owner_also_when_the_clock_was_set_back(
    address: str, guestd: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def owner(token: str | None) -> GuestIdentity:
        return GuestIdentity("abc", "base", "control", token, "abc", "0" * 32, "root", "", envs={})

    guest = GuestdClient()
    try:
        await guest.init(address, owner(None), START_DEADLINE)
        assert guestd.get("/envs").status_code == 200
        monkeypatch.setattr("warren.guest.guestd.datetime", SetBack)
        await guest.init(address, owner("access"), START_DEADLINE)
    finally:
        await guest.close()
    assert guestd.get("/envs").status_code == 401
    assert guestd.get("/envs", headers={"X-Access-Token": "access"}).status_code == 200


def signature(path: str, operation: str, expiration: int) -> dict[str, str | int]:
    digest = sha256(f"{path}:{operation}::access:{expiration}".encode()).digest()
    sign = "v1_" + b64encode(digest).decode().rstrip("=")
    return {"path": path, "signature": sign, "signature_expiration": expiration}


@pytest.mark.usefixtures("guestd")
async def test_files_go_in_and_out(rig: Rig, tmp_path: Path) -> None:
    file, content = tmp_path / "file", os.urandom(3 << 20)
    headers = to("abc", **{"X-Access-Token": "access"})
    sent = {**headers, "Content-Type": "application/octet-stream"}
    written = await rig.client.post(rig.url + "/files", params={"path": str(file)}, headers=sent, content=content)
    assert written.status_code == 200
    assert file.read_bytes() == content
    read = await rig.client.get(rig.url + "/files", params={"path": str(file)}, headers=headers)
    assert read.content == content
    assert (await rig.client.get(rig.url + "/files", params={"path": str(file)}, headers=to("abc"))).status_code == 401


@pytest.mark.usefixtures("guestd")
async def test_a_signed_url_is_checked_by_both(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "with space + plus"
    file.write_text("hello")
    soon, past = int(time.time()) + 60, int(time.time()) - 60
    assert (await rig.client.get(rig.url + "/files", params=signature(str(file), "read", soon))).text == "hello"
    late = await rig.client.get(rig.url + "/files", params=signature(str(file), "read", past))
    assert (late.status_code, late.json()) == (401, {"code": 401, "message": "signature is already expired"})
    wrong = await rig.client.get(rig.url + "/files", params=signature(str(file), "write", soon))
    assert (wrong.status_code, wrong.json()) == (401, {"code": 401, "message": "invalid signature"})


@pytest.mark.usefixtures("guestd")
@pytest.mark.parametrize("loopback", ["127.0.0.1", "::1"])
async def test_a_service_on_the_loopback_is_reached_through_the_tunnel(rig: Rig, loopback: str) -> None:
    async def mirror(request: web.Request) -> web.StreamResponse:
        if "Upgrade" in request.headers:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str((await socket.receive()).data)
            await socket.close()
            return socket
        return web.Response(body=await request.read())

    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/", mirror)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    rig.stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, loopback, 0)
    await site.start()
    port = runner.addresses[0][1]
    content = os.urandom(1 << 20)
    assert (await rig.client.post(rig.url, headers=to("abc", port), content=content)).content == content
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.gateway.port)
    writer.write(
        f"GET / HTTP/1.1\r\nHost: {port}-abc.any.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        + b"\x81\x82\x00\x00\x00\x00hi"
    )
    async with asyncio.timeout(5):
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(4) == b"\x81\x02hi"
    writer.close()


async def test_the_tunnel_cannot_be_had_from_outside(rig: Rig, guestd: httpx.Client) -> None:
    answer = await rig.client.get(
        rig.url + "/warren/tunnel?port=1", headers=to("abc", **{"X-Warren-Control": "control"})
    )
    assert (answer.status_code, answer.json()["code"]) == (404, 404)
    assert guestd.get("/warren/tunnel?port=1").status_code in (401, 403, 404)


@pytest.mark.usefixtures("guestd")
async def test_a_port_that_is_closed_inside_too_says_so(rig: Rig) -> None:
    answer = await rig.client.get(rig.url, headers=to("abc", 9))
    assert answer.json() == {
        "sandboxId": "abc",
        "message": "The sandbox is running but port is not open",
        "port": 9,
        "code": 502,
    }
