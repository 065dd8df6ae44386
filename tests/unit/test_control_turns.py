"""Creates that no spare serves take turns; the in-memory engine is slow here."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.unit.api_server import ApiServer, api_server
from tests.unit.waiting import eventually
from warren.contracts.engine import Placement, SandboxSpec
from warren.contracts.store import SandboxQuery
from warren.model import limits
from warren.model.sandbox import State

pytestmark = pytest.mark.anyio
NEW = {"templateID": "base", "timeout": 60}


@asynccontextmanager
async def busy(state: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[ApiServer, asyncio.Event]]:
    """One create at a time, and that one under way until the event is set."""
    monkeypatch.setattr(limits, "CREATES_BESIDE", 1 - (os.cpu_count() or 1))
    async with api_server(state, pool_sandboxes=4) as server:
        go_on, create = asyncio.Event(), server.engine.create

        async def slow(spec: SandboxSpec) -> Placement:
            await go_on.wait()
            return await create(spec)

        monkeypatch.setattr(server.engine, "create", slow)
        yield server, go_on
        go_on.set()


async def asked(server: ApiServer, **more: object) -> asyncio.Task[httpx.Response]:
    """A create that is under way or waits."""
    task = asyncio.create_task(server.client.post("/v2/sandboxes", json=NEW | more))
    await asyncio.sleep(0.05)
    return task


async def rows(server: ApiServer) -> int:
    return len(await server.store.sandboxes(SandboxQuery(server.project.id, states=frozenset(State))))


async def test_who_waits_has_made_nothing_yet_and_may_go_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with busy(tmp_path, monkeypatch) as (server, go_on):
        first, second, third = [await asked(server) for _ in range(3)]
        made = await rows(server)
        second.cancel()
        await asyncio.wait([second])
        go_on.set()
        answers = [(await task).status_code for task in (first, third)]
        assert (made, await rows(server), answers) == (1, 2, [201, 201])


async def test_too_many_who_wait_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CREATES_WAITING", 1)
    async with busy(tmp_path, monkeypatch) as (server, go_on):
        first, second = [await asked(server) for _ in range(2)]
        refused = await server.client.post("/v2/sandboxes", json=NEW)
        assert (refused.status_code, "too many are waiting" in refused.json()["message"]) == (503, True)
        go_on.set()
        assert [(await task).status_code for task in (first, second)] == [201, 201]


async def test_who_waits_too_long_is_told_so_and_leaves_his_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with busy(tmp_path, monkeypatch) as (server, go_on):
        first = await asked(server)
        monkeypatch.setattr(limits, "CREATE_DEADLINE_S", 0.01)
        late = await server.client.post("/v2/sandboxes", json=NEW)
        assert (late.status_code, "too many are waiting" in late.json()["message"]) == (504, True)
        monkeypatch.setattr(limits, "CREATE_DEADLINE_S", 50.0)
        go_on.set()
        assert (await first).status_code == 201
        assert (await server.client.post("/v2/sandboxes", json=NEW)).status_code == 201


async def test_a_refused_create_leaves_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with busy(tmp_path, monkeypatch) as (server, go_on):
        go_on.set()
        headers = await server.other_project(sandboxes=0)
        refused = await server.client.post("/v2/sandboxes", json=NEW, headers=headers)
        assert refused.status_code == 429
        assert (await server.client.post("/v2/sandboxes", json=NEW)).status_code == 201


async def test_a_claim_of_a_spare_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "POOL_QUIET_S", 0.01)
    async with busy(tmp_path, monkeypatch) as (server, go_on):
        go_on.set()
        server.work.spawn(server.control.spares.run(lambda: server.control.starting.is_idle), "pool")

        async def is_full() -> bool:
            return sum(level.ready for level in server.control.spares.levels()) == 2

        await eventually(is_full)
        go_on.clear()
        cold = await asked(server, memoryMB=256)
        assert (await server.client.post("/v2/sandboxes", json=NEW)).status_code == 201
        assert not cold.done()
        go_on.set()
        assert (await cold).status_code == 201
        await server.control.spares.drain()
