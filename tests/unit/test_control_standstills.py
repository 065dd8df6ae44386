"""A sandbox that stands still to be copied is neither silent nor out of reach of help: it goes on in a moment."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.api_server import ApiServer, api_server
from tests.unit.test_api_sleep_races import create, row
from tests.unit.waiting import eventually
from warren.contracts.engine import Checkpoint, Shortage
from warren.contracts.store import LogQuery
from warren.model import limits
from warren.model.errors import GuestSilent, SandboxChanging
from warren.model.pause import PauseKind
from warren.model.sandbox import State

pytestmark = pytest.mark.anyio

COPIES = ("snapshots", "fork")


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[ApiServer]:
    monkeypatch.setattr(limits, "HEALTH_PERIOD_S", 0.001)
    monkeypatch.setattr(limits, "HEALTH_SILENCE_S", 0.05)
    monkeypatch.setattr(limits, "MEMORY_RELIEF_DEADLINE_S", 0.05)
    async with api_server(tmp_path) as running:
        yield running


class Standstill:
    """A copy of a sandbox that takes until `over`: its guest does not answer."""

    def __init__(self, server: ApiServer) -> None:
        self._server, self._real = server, server.engine.checkpoint
        self._begun, self._over = asyncio.Event(), asyncio.Event()

    async def checkpoint(self, *given: Any, **named: Any) -> Checkpoint:
        self._server.guest.silent = True
        self._begun.set()
        await self._over.wait()
        self._server.guest.silent = False
        return await self._real(*given, **named)

    async def begin(self, sandbox: str, copy: str) -> asyncio.Task[httpx.Response]:
        asked = asyncio.create_task(self._server.client.post(f"/sandboxes/{sandbox}/{copy}", json={}))
        await self._begun.wait()
        return asked

    async def end(self, asked: asyncio.Task[httpx.Response]) -> None:
        self._over.set()
        assert (await asked).status_code == 201


@pytest.fixture
def standstill(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Standstill:
    made = Standstill(server)
    monkeypatch.setattr(server.engine, "checkpoint", made.checkpoint)
    return made


@pytest.mark.parametrize("copy", COPIES)
async def test_it_is_not_taken_for_silent_and_its_streams_stay(
    server: ApiServer, standstill: Standstill, copy: str
) -> None:
    sandbox, cut = await create(server), list[str]()
    server.control.live.on_cut(cut.append)
    asking = asyncio.create_task(server.control.health.run())
    asked = await standstill.begin(sandbox, copy)
    await asyncio.sleep(4 * limits.HEALTH_SILENCE_S)
    await standstill.end(asked)
    assert cut == []
    assert (await server.client.get(f"/sandboxes/{sandbox}")).json()["health"] == "ok"
    server.guest.silent = True
    await eventually(lambda: was_cut(cut, sandbox))
    asking.cancel()


async def was_cut(cut: list[str], sandbox: str) -> bool:
    return sandbox in cut


@pytest.mark.parametrize("copy", COPIES)
async def test_memory_that_runs_short_is_seen_to_when_it_goes_on(
    server: ApiServer, standstill: Standstill, copy: str
) -> None:
    sandbox = await create(server)
    asked = await standstill.begin(sandbox, copy)
    server.engine.run_short(sandbox, Shortage.GUEST, 500, 0)
    await asyncio.sleep(4 * limits.MEMORY_RELIEF_DEADLINE_S)
    assert server.guest.freed == []
    await standstill.end(asked)
    await eventually(lambda: relieved(server, sandbox))
    assert (await row(server, sandbox)).state is State.RUNNING


async def relieved(server: ApiServer, sandbox: str) -> bool:
    return any("out of memory" in entry.message for entry in await server.store.logs(sandbox, LogQuery(limit=10)))


async def test_memory_is_given_back_before_a_copy_begins(
    server: ApiServer, standstill: Standstill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MEMORY_RELIEF_DEADLINE_S", 5.0)
    sandbox, freeing, freed = await create(server), asyncio.Event(), asyncio.Event()

    async def free(*_: object) -> bool:
        freeing.set()
        await freed.wait()
        return True

    monkeypatch.setattr(server.guest, "free", free)
    server.engine.run_short(sandbox, Shortage.GUEST, 500, 0)
    await freeing.wait()
    copying = asyncio.create_task(standstill.begin(sandbox, "snapshots"))
    await settled()
    assert not copying.done()
    freed.set()
    await standstill.end(await copying)


async def test_a_pause_waits_for_it_and_keeps_the_memory(server: ApiServer, standstill: Standstill) -> None:
    sandbox = await create(server)
    asked = await standstill.begin(sandbox, "snapshots")
    pausing = asyncio.create_task(server.client.post(f"/sandboxes/{sandbox}/pause", json={}))
    await settled()
    assert not pausing.done()
    await standstill.end(asked)
    assert (await pausing).status_code == 204
    pause = (await row(server, sandbox)).pause
    assert pause is not None
    assert (pause.kind, pause.guest_silent) == (PauseKind.MEMORY, False)


async def test_a_fork_that_needs_its_guest_asks_again_when_it_goes_on(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox, asked = await create(server, runtime="crun"), asyncio.Event()
    real, standstills = server.guest.retain_envs, server.control.pausing._standstills  # pyright: ignore[reportPrivateUsage]

    async def caught(*given: Any) -> None:
        if asked.is_set():
            return await real(*given)
        asked.set()
        while sandbox not in standstills:
            await asyncio.sleep(0)
        raise GuestSilent

    monkeypatch.setattr(server.guest, "retain_envs", caught)
    forking = asyncio.create_task(server.client.post(f"/sandboxes/{sandbox}/fork", json={"inheritEnvVars": True}))
    await asked.wait()
    async with standstills.begin(sandbox):
        await settled()
    assert (await forking).status_code == 201


async def test_a_guest_that_was_just_found_silent_is_asked_nothing_more_before_a_pause(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox, asked = await create(server), list[str]()
    server.guest.silent = True

    async def logs(*_: object) -> None:
        asked.append("its journal")
        raise GuestSilent

    monkeypatch.setattr(server.guest, "logs", logs)
    assert (await server.client.post(f"/sandboxes/{sandbox}/pause", json={})).status_code == 204
    assert asked == []


async def test_idleness_lets_it_be(server: ApiServer, standstill: Standstill) -> None:
    sandbox = await create(server)
    asked = await standstill.begin(sandbox, "snapshots")
    with pytest.raises(SandboxChanging, match="being copied"):
        await server.control.pausing.idle(await row(server, sandbox), PauseKind.FROZEN, lambda: True)
    await standstill.end(asked)


async def settled() -> None:
    """Whoever can go on has done so."""
    for _ in range(200):
        await asyncio.sleep(0)
