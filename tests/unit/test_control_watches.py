"""One watch for each life of a sandbox: it lasts as long as that, and no longer."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.unit.api_server import ApiServer, api_server
from tests.unit.waiting import eventually
from warren.contracts.engine import Shortage
from warren.contracts.store import LogQuery
from warren.model.pause import PauseKind
from warren.model.sandbox import EndReason, Sandbox

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[ApiServer]:
    async with api_server(tmp_path) as running:
        yield running


@pytest.fixture
async def sandbox(server: ApiServer) -> str:
    return (await server.client.post("/v2/sandboxes", json={"templateID": "base"})).json()["sandboxID"]


async def row(server: ApiServer, sandbox: str) -> Sandbox:
    found = await server.store.sandbox(server.project.id, sandbox)
    assert found is not None
    return found


async def freeze(server: ApiServer, sandbox: str) -> None:
    await server.control.pausing.idle(await row(server, sandbox), PauseKind.FROZEN, lambda: True)


async def has_died(server: ApiServer, sandbox: str) -> bool:
    return (await row(server, sandbox)).end_reason is EndReason.DIED


async def test_a_sandbox_whose_guest_fell_silent_is_seen_to_die_all_the_same(server: ApiServer, sandbox: str) -> None:
    live = server.control.live
    for answers in (False, True, False):
        route = live.find(sandbox)
        assert route is not None
        assert live.mark(route, answers=answers)
    server.engine.kill_guest(sandbox)
    await eventually(lambda: has_died(server, sandbox))
    assert live.find(sandbox) is None


async def test_a_sandbox_whose_guest_fell_silent_keeps_its_deadline(server: ApiServer, sandbox: str) -> None:
    route = server.control.live.find(sandbox)
    assert route is not None
    assert server.control.live.mark(route, answers=False)
    assert server.control.watches.is_due((await row(server, sandbox)).expires_at)


async def test_however_often_it_slept_one_waits_for_its_end_and_one_for_its_shortages(
    server: ApiServer, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = Counter[str]()
    shortage, death = server.engine.shortage, server.engine.death

    async def counted_shortage(sandbox_id: str) -> Shortage:
        waiting["shortage"] += 1
        try:
            return await shortage(sandbox_id)
        finally:
            waiting["shortage"] -= 1

    async def counted_death(sandbox_id: str) -> None:
        waiting["death"] += 1
        try:
            await death(sandbox_id)
        finally:
            waiting["death"] -= 1

    monkeypatch.setattr(server.engine, "shortage", counted_shortage)
    monkeypatch.setattr(server.engine, "death", counted_death)
    for _ in range(3):
        await freeze(server, sandbox)
        await server.control.waking.wake(sandbox)
    await asyncio.sleep(0)
    assert waiting == {"shortage": 1, "death": 1}
    await freeze(server, sandbox)
    await asyncio.sleep(0)
    assert not waiting.total()


async def test_memory_that_was_lent_when_it_fell_asleep_is_seen_to_when_it_wakes(
    server: ApiServer, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def busy(address: str, control_token: str, need: int, attempt: int) -> bool:
        asked.set()
        await asyncio.Event().wait()
        return False

    with monkeypatch.context() as hanging:
        hanging.setattr(server.guest, "free", busy)
        server.engine.run_short(sandbox, Shortage.GUEST, 500, 400, 0)
        await asked.wait()
        await freeze(server, sandbox)
    await server.control.waking.wake(sandbox)
    await eventually(lambda: relieved(server, sandbox))
    assert server.guest.freed == [(400, 0)]


async def relieved(server: ApiServer, sandbox: str) -> bool:
    return any("out of memory" in entry.message for entry in await server.store.logs(sandbox, LogQuery(limit=10)))
