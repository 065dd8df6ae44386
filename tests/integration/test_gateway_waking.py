"""Requests to a sandbox that sleeps: who wakes it, what they get, and why it may stay asleep."""

import asyncio
import time
from base64 import b64encode
from hashlib import sha256

import httpx
import pytest
from aiohttp import web

from tests.integration.gateway_rig import GUEST_PORT, Rig, to
from warren.contracts.routing import Route
from warren.model.errors import (
    CheckpointUnusable,
    EngineFailed,
    Forbidden,
    LimitReached,
    SandboxChanging,
    SandboxNotFound,
    WarrenError,
)

pytestmark = pytest.mark.anyio

ACCESS = {"X-Access-Token": "access"}


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="awake")


async def asleep(rig: Rig, port: int, **tokens: str | None) -> Route:
    """A sandbox with a service, whose route is there only once it was woken."""
    route = rig.routes.add("abc", **tokens)
    await rig.app(route.address, hello, port)
    rig.routes.sleeping["abc"] = rig.routes.routes.pop("abc")
    return route


def signed(expiration: int | None = None) -> httpx.QueryParams:
    text = "/x:read::access" + ("" if expiration is None else f":{expiration}")
    signature = "v1_" + b64encode(sha256(text.encode()).digest()).decode().rstrip("=")
    given = {} if expiration is None else {"signature_expiration": str(expiration)}
    return httpx.QueryParams({"path": "/x", "signature": signature} | given)


async def ask(rig: Rig, port: int, path: str = "/", **headers: str) -> httpx.Response:
    return await rig.client.get(rig.url + path, headers=to("abc", port, **headers))


async def test_the_first_request_waits_and_is_served_and_so_are_those_with_it(rig: Rig) -> None:
    await asleep(rig, 8000)
    answers = await asyncio.gather(*(ask(rig, 8000) for _ in range(3)))
    assert [(answer.status_code, answer.text) for answer in answers] == [(200, "awake")] * 3
    assert (await ask(rig, 8000)).text == "awake"


async def test_a_private_port_is_woken_by_its_token_alone(rig: Rig) -> None:
    await asleep(rig, 8000, traffic_token="traffic")
    for headers in ({}, {"E2b-Traffic-Access-Token": "wrong"}):
        assert (await ask(rig, 8000, **headers)).status_code == 403
    assert rig.routes.wakes == 0
    assert (await ask(rig, 8000, **{"E2b-Traffic-Access-Token": "traffic"})).text == "awake"


async def test_the_guest_is_woken_by_its_token_or_a_signature_alone(rig: Rig) -> None:
    await asleep(rig, GUEST_PORT, access_token="access")
    forged = "/files?path=/x&signature=v1_" + "A" * 43
    for path, headers in (("/health", {}), ("/health", {"X-Access-Token": "wrong"}), (forged, {})):
        assert (await ask(rig, GUEST_PORT, path, **headers)).status_code == 403
    assert rig.routes.wakes == 0
    assert (await ask(rig, GUEST_PORT, f"/files?{signed()}")).text == "awake"


async def test_a_signature_wakes_for_files_alone_and_while_it_holds(rig: Rig) -> None:
    await asleep(rig, GUEST_PORT, access_token="access")
    now = int(time.time())
    for path in (
        f"/health?{signed()}",
        f"/files/compose?{signed()}",
        f"/files?{signed(now - 1)}",
        f"/files?{signed(0)}",
    ):
        assert (await ask(rig, GUEST_PORT, path)).status_code == 403
    assert rig.routes.wakes == 0
    assert (await ask(rig, GUEST_PORT, f"/files?{signed(now + 60)}")).text == "awake"


async def test_an_open_guest_is_woken_by_anybody_and_its_hidden_routes_by_nobody(rig: Rig) -> None:
    await asleep(rig, GUEST_PORT, access_token=None)
    assert (await ask(rig, GUEST_PORT, "/init", **ACCESS)).status_code == 404
    assert rig.routes.wakes == 0
    assert (await ask(rig, GUEST_PORT, "/health")).text == "awake"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Forbidden("cannot wake: no key"), 403),
        (SandboxChanging("cannot wake in time"), 409),
        (CheckpointUnusable("cannot restore this memory"), 409),
        (LimitReached("cannot resume: quota"), 429),
        (EngineFailed("cannot restore: no luck"), 502),
        (SandboxNotFound(), 502),
    ],
)
async def test_what_stays_asleep_says_why(rig: Rig, error: WarrenError, status: int) -> None:
    await asleep(rig, 8000)
    rig.routes.refusal = error
    answer = await ask(rig, 8000)
    assert (answer.status_code, answer.json()["code"], answer.json()["sandboxId"]) == (status, status, "abc")
    assert ("was not found" if isinstance(error, SandboxNotFound) else error.message) in answer.json()["message"]


async def test_who_does_not_sleep_is_not_found(rig: Rig) -> None:
    answer = await ask(rig, 8000)
    assert (answer.status_code, rig.routes.wakes) == (502, 0)
    assert "was not found" in answer.json()["message"]
