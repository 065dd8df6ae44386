"""An extension that was acknowledged holds, however late it came."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_server import ApiServer, api_server
from tests.unit.test_api_sleep_races import before, call, create, row
from tests.unit.waiting import eventually
from warren.model import limits
from warren.model.sandbox import EndReason, State

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[ApiServer]:
    monkeypatch.setattr(limits, "WISH_PERIOD_S", 0.01)
    async with api_server(tmp_path) as running:
        yield running


async def expire(server: ApiServer, sandbox: str) -> None:
    await server.store.set_deadline(sandbox, datetime.now(UTC), False)


@pytest.mark.parametrize(("lifecycle", "step"), [({"autoPause": True}, "claim_pause"), ({}, "mark_killing")])
async def test_one_that_comes_when_its_end_or_pause_has_begun_is_in_time(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, lifecycle: dict[str, Any], step: str
) -> None:
    sandbox, extended = await create(server, **lifecycle), asyncio.Event()

    async def extend() -> None:
        answer = await call(server, sandbox, "timeout", timeout=100)
        assert answer.status_code == 204
        extended.set()

    before(monkeypatch, server.store, step, extend)
    await expire(server, sandbox)
    await extended.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    kept = await row(server, sandbox)
    assert (kept.state, kept.pause) == (State.RUNNING, None)
    assert server.control.live.find(sandbox) is not None
    await expire(server, sandbox)
    await eventually(lambda: has_met_its_deadline(server, sandbox))


async def has_met_its_deadline(server: ApiServer, sandbox: str) -> bool:
    found = await row(server, sandbox)
    return found.state is State.PAUSED or found.end_reason is EndReason.EXPIRED


async def test_a_kill_that_joins_an_end_which_came_to_nothing_kills(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox, extended, go_on = await create(server), asyncio.Event(), asyncio.Event()

    async def extend() -> None:
        assert (await call(server, sandbox, "timeout", timeout=100)).status_code == 204
        extended.set()
        await go_on.wait()

    before(monkeypatch, server.store, "mark_killing", extend)
    await expire(server, sandbox)
    await extended.wait()
    killing = asyncio.create_task(server.client.delete(f"/sandboxes/{sandbox}"))
    for _ in range(100):  # as far as it comes
        await asyncio.sleep(0)
    go_on.set()
    assert (await killing).status_code == 204
    assert (await row(server, sandbox)).end_reason is EndReason.KILLED
