"""Few checkpoints are written at once. A sandbox that waits for its turn runs on, in reach, and nothing is claimed."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.api_server import ApiServer, api_server
from tests.unit.test_api_sleep_races import call, code, create, row
from tests.unit.test_control_standstills import settled
from tests.unit.waiting import eventually
from warren.contracts.engine import Checkpoint
from warren.control.pausing import PauseRequest
from warren.model import limits
from warren.model.errors import SandboxChanging, SandboxPaused
from warren.model.pause import PauseKind
from warren.model.sandbox import State

pytestmark = pytest.mark.anyio

COPIES = ("snapshots", "fork")


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[ApiServer]:
    monkeypatch.setattr(limits, "CHECKPOINTS_AT_ONCE", 1)
    async with api_server(tmp_path) as running:
        yield running


class Writing:
    """Every checkpoint takes until `over`."""

    def __init__(self, server: ApiServer) -> None:
        self._server, self._real = server, server.engine.checkpoint
        self.begun, self.over = list[str](), asyncio.Event()

    async def checkpoint(self, sandbox_id: str, *given: Any, **named: Any) -> Checkpoint:
        self.begun.append(sandbox_id)
        await self.over.wait()
        return await self._real(sandbox_id, *given, **named)

    async def by(self, sandbox: str, verb: str) -> asyncio.Task[httpx.Response]:
        asked = asyncio.create_task(call(self._server, sandbox, verb))

        async def has_begun() -> bool:
            return sandbox in self.begun

        await eventually(has_begun)
        return asked


@pytest.fixture
def writing(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Writing:
    made = Writing(server)
    monkeypatch.setattr(server.engine, "checkpoint", made.checkpoint)
    return made


async def runs_in_reach(server: ApiServer, sandbox: str) -> bool:
    is_running = (await row(server, sandbox)).state is State.RUNNING
    return is_running and server.control.live.find(sandbox) is not None


@pytest.mark.parametrize("verb", ["pause", *COPIES])
async def test_who_waits_runs_on_and_does_not_stand_still(
    server: ApiServer, writing: Writing, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(limits, "CHECKPOINT_DEADLINE_S", 0.2)
    first, second = await create(server), await create(server)
    asked = await writing.by(first, "snapshots")
    waiting = asyncio.create_task(call(server, second, verb))
    await settled()
    assert writing.begun == [first]
    assert await runs_in_reach(server, second)
    assert second not in server.control.pausing._standstills  # pyright: ignore[reportPrivateUsage]
    assert code(await asked) == (503, "busy")
    writing.over.set()
    assert (await waiting).is_success, "its own time began with its turn"


async def test_who_waits_for_its_own_sandbox_takes_no_place(server: ApiServer, writing: Writing) -> None:
    server.control.context.snapshots._checkpoints._writers = asyncio.Semaphore(2)  # pyright: ignore[reportPrivateUsage]
    first, second = await create(server), await create(server)
    asked = [await writing.by(first, "snapshots"), asyncio.create_task(call(server, first, "snapshots"))]
    await settled()
    asked.append(await writing.by(second, "snapshots"))
    writing.over.set()
    assert [answer.status_code for answer in await asyncio.gather(*asked)] == [201] * 3


@pytest.mark.parametrize("verb", ["pause", *COPIES])
async def test_who_waits_too_long_is_told_and_runs_on(
    server: ApiServer, writing: Writing, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    first, second = await create(server), await create(server)
    asked = await writing.by(first, "snapshots")
    monkeypatch.setattr(limits, "CHECKPOINT_TURN_S", 0.01)
    assert code(await call(server, second, verb)) == (503, "busy")
    assert await runs_in_reach(server, second)
    writing.over.set()
    assert (await asked).is_success


async def test_what_waits_too_long_at_its_deadline_is_frozen(
    server: ApiServer, writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await create(server), await create(server, timeout=1, autoPause=True)

    async def is_paused() -> bool:
        return (await row(server, second)).state is State.PAUSED

    asked = await writing.by(first, "snapshots")
    monkeypatch.setattr(limits, "CHECKPOINT_TURN_S", 0.01)
    await eventually(is_paused)
    pause = (await row(server, second)).pause
    assert pause is not None
    assert pause.kind is PauseKind.FROZEN
    writing.over.set()
    assert (await asked).is_success


async def test_whether_it_is_still_idle_is_judged_when_its_turn_has_come(server: ApiServer, writing: Writing) -> None:
    first, second, idle = await create(server), await create(server), [True]
    asked = await writing.by(first, "snapshots")
    found = await row(server, second)
    pausing = asyncio.create_task(server.control.pausing.idle(found, PauseKind.MEMORY, lambda: idle[0]))
    await settled()
    idle[0] = False
    writing.over.set()
    assert (await asked).is_success
    with pytest.raises(SandboxChanging, match="in use again"):
        await pausing
    assert await runs_in_reach(server, second)


async def test_a_copy_that_waits_while_a_pause_ends_is_told_that_it_is_paused(
    server: ApiServer, writing: Writing
) -> None:
    found = await row(server, await create(server))
    pausing = asyncio.create_task(server.control.pausing.pause(server.project, found, PauseRequest()))
    await settled()
    copying = asyncio.create_task(server.control.context.snapshots.take(server.project, found, None, memory=None))
    await settled()
    writing.over.set()
    await pausing
    with pytest.raises(SandboxPaused):
        await copying
