"""URLs without any header: the signature names the sandbox."""

import time
from base64 import b64encode
from hashlib import sha256
from urllib.parse import quote

import httpx
import pytest
from aiohttp import web

from tests.integration.gateway_rig import GUEST_PORT, running_gateway

pytestmark = pytest.mark.anyio


def signed(path: str, operation: str, token: str, expiration: int | None = None) -> str:
    text = f"{path}:{operation}::{token}" + ("" if expiration is None else f":{expiration}")
    sign = quote("v1_" + b64encode(sha256(text.encode()).digest()).decode().rstrip("="), safe="")
    end = "" if expiration is None else f"&signature_expiration={expiration}"
    return f"/files?path={quote(path, safe='')}&signature={sign}{end}"


async def test_a_signed_url_finds_its_sandbox() -> None:
    async def whose(request: web.Request) -> web.Response:
        assert request.transport is not None
        return web.Response(text=f"{request.transport.get_extra_info('sockname')[0]} {request.raw_path}")

    async with running_gateway() as rig:
        for name in ("abc", "other"):
            await rig.app(rig.routes.add(name, access_token=f"token of {name}").address, whose, GUEST_PORT)
        target = signed("/tmp/ä b+c", "read", "token of other", int(time.time()) + 60)
        answer = await rig.client.get(httpx.URL(rig.url + target))
        assert answer.text == f"{rig.routes.routes['other'].address} {target}"
        for refused in (
            await rig.client.post(rig.url + target, content=b"x"),
            await rig.client.get(rig.url + signed("/tmp/x", "read", "token of nobody")),
            await rig.client.get(rig.url + target.replace("tmp", "etc")),
        ):
            assert (refused.status_code, refused.json()) == (401, {"code": 401, "message": "invalid signature"})
