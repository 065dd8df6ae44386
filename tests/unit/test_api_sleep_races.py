"""Calls that meet a sandbox on its way into sleep, over the in-memory engine, guest and store."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.api_server import ApiServer, api_server
from tests.unit.waiting import eventually
from warren.contracts.engine import Placement, Restore, SandboxSpec
from warren.control.pausing import PauseRequest
from warren.model import limits
from warren.model.errors import EngineFailed, WarrenError
from warren.model.pause import Pause, PauseCause, PauseKind
from warren.model.sandbox import Sandbox, State
from warren.model.snapshot import SnapshotKind

pytestmark = pytest.mark.anyio

Act = Callable[[], Awaitable[object]]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[ApiServer]:
    async with api_server(tmp_path) as running:
        yield running


async def create(server: ApiServer, **fields: Any) -> str:
    answer = await server.client.post("/v2/sandboxes", json={"templateID": "base", **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()["sandboxID"]


async def call(server: ApiServer, sandbox: str, verb: str, **body: Any) -> httpx.Response:
    path = f"{'/v2' if verb == 'connect' else ''}/sandboxes/{sandbox}/{verb}"
    return await server.client.request("PUT" if verb == "network" else "POST", path, json=body)


async def row(server: ApiServer, sandbox: str) -> Sandbox:
    found = await server.store.sandbox(server.project.id, sandbox)
    assert found is not None
    return found


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error_code"]


def before(monkeypatch: pytest.MonkeyPatch, owner: object, method: str, act: Act, *, times: int = 1) -> None:
    """`act` gets in between what a call has read and what it does with `method`."""
    real, left = getattr(owner, method), [times]

    async def late(*given: Any, **named: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            await act()
        return await real(*given, **named)

    monkeypatch.setattr(owner, method, late)


async def fall_asleep(server: ApiServer, sandbox: str) -> None:
    await server.control.pausing.pause(server.project, await row(server, sandbox), PauseRequest())


async def begin_pause(server: ApiServer, sandbox: str, by: PauseCause = PauseCause.OWNER) -> None:
    """As far as a pause gets before it has written anything."""
    now = (await row(server, sandbox)).started_at
    assert await server.store.claim_pause(sandbox, Pause("c" + "x" * 20, PauseKind.MEMORY, by, now))
    server.control.live.remove(sandbox)


# --- calls that a pause overtakes --------------------------------------------------------------------------


async def test_a_connect_that_a_pause_overtakes_resumes(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = await create(server)
    before(monkeypatch, server.store, "set_deadline", lambda: fall_asleep(server, sandbox))
    assert (await call(server, sandbox, "connect", timeout=100)).status_code == 201
    assert (await row(server, sandbox)).state is State.RUNNING
    assert server.control.live.find(sandbox) is not None


async def test_a_connect_that_is_overtaken_again_and_again_is_409(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await create(server)
    before(monkeypatch, server.store, "set_deadline", lambda: fall_asleep(server, sandbox), times=10)
    assert code(await call(server, sandbox, "connect")) == (409, "sandbox_changing")


@pytest.mark.parametrize(
    ("method", "verb", "body"),
    [("set_deadline", "timeout", {"timeout": 100}), ("set_deadline", "refreshes", {})],
)
async def test_what_needs_it_awake_is_409_when_a_pause_overtakes_it(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, method: str, verb: str, body: dict[str, Any]
) -> None:
    sandbox = await create(server)
    before(monkeypatch, server.store, method, lambda: fall_asleep(server, sandbox))
    assert code(await call(server, sandbox, verb, **body)) == (409, "sandbox_paused")


async def test_new_network_rules_do_not_wait_for_the_end_of_a_pause(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine lets nobody at a sandbox of which it writes a checkpoint."""
    sandbox, asked = await create(server), list[str]()

    async def set_egress(sandbox_id: str, _: object) -> None:
        asked.append(sandbox_id)

    monkeypatch.setattr(server.engine, "set_egress", set_egress)
    before(monkeypatch, server.store, "set_network", lambda: begin_pause(server, sandbox))
    assert code(await call(server, sandbox, "network")) == (409, "sandbox_changing")
    assert not asked


async def test_new_network_rules_of_what_falls_asleep_meanwhile_hold_when_it_wakes(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await create(server)
    before(monkeypatch, server.engine, "set_egress", lambda: fall_asleep(server, sandbox))
    assert (await call(server, sandbox, "network", allow_internet_access=False)).status_code == 204
    assert (await call(server, sandbox, "connect")).status_code == 201
    assert server.engine.egress(sandbox) == (await row(server, sandbox)).network.egress()
    assert server.engine.egress(sandbox).deny


# --- statuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [{"memory": False}, {"requireHealthyGuest": True}, {"durable": True}])
@pytest.mark.parametrize("asleep", [fall_asleep, begin_pause])
async def test_a_pause_of_what_sleeps_is_409_whatever_it_asks_for(
    server: ApiServer, body: dict[str, Any], asleep: Callable[[ApiServer, str], Awaitable[None]]
) -> None:
    sandbox = await create(server)
    await asleep(server, sandbox)
    assert code(await call(server, sandbox, "pause", **body)) == (409, "sandbox_paused")


async def test_a_pause_that_another_overtakes_is_409_though_no_guest_answers_any_more(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await create(server)
    found = await row(server, sandbox)
    await fall_asleep(server, sandbox)
    with pytest.raises(WarrenError) as refused:
        await server.control.pausing.pause(server.project, found, PauseRequest(strict=True))
    assert refused.value.code == "sandbox_paused"


async def test_a_pause_of_what_sleeps_is_409_also_where_the_disk_is_used_up(server: ApiServer) -> None:
    headers = await server.other_project(snapshot_mb=1)
    answer = await server.client.post("/v2/sandboxes", json={"templateID": "base"}, headers=headers)
    path = f"/sandboxes/{answer.json()['sandboxID']}/pause"
    assert (await server.client.post(path, headers=headers)).status_code == 204
    assert code(await server.client.post(path, headers=headers)) == (409, "sandbox_paused")


async def test_a_connect_that_waits_too_long_for_a_pause_is_409(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WAKE_DEADLINE_S", 0.01)
    sandbox = await create(server)
    await begin_pause(server, sandbox)
    answer = await call(server, sandbox, "connect")
    assert code(answer) == (409, "sandbox_changing")
    assert "still being paused" in answer.json()["message"]


async def test_a_connect_that_waits_too_long_for_another_s_wake_is_told_so(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await create(server)
    await fall_asleep(server, sandbox)
    outcome = asyncio.get_running_loop().create_future()
    begun = slow_restores(server, monkeypatch, outcome)

    async def is_reading() -> bool:
        return bool(begun)

    async with asyncio.TaskGroup() as group:
        first = group.create_task(call(server, sandbox, "connect"))
        await eventually(is_reading)
        monkeypatch.setattr(limits, "WAKE_DEADLINE_S", 0.01)
        answer = await call(server, sandbox, "connect", memory=False)
        outcome.set_result(None)
    assert code(answer) == (409, "sandbox_changing")
    assert "still being woken by another call" in answer.json()["message"]
    assert first.result().status_code == 201


@pytest.mark.parametrize("copy", ["snapshots", "fork"])
async def test_a_copy_that_takes_too_long_is_503(server: ApiServer, monkeypatch: pytest.MonkeyPatch, copy: str) -> None:
    async def endless(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(limits, "CHECKPOINT_DEADLINE_S", 0.01)
    monkeypatch.setattr(server.engine, "checkpoint", endless)
    assert code(await call(server, await create(server), copy)) == (503, "busy")


# --- waking ------------------------------------------------------------------------------------------------


def slow_restores(server: ApiServer, monkeypatch: pytest.MonkeyPatch, *outcomes: Awaitable[None]) -> list[Restore]:
    """Each restore waits for its outcome, if there is one left."""
    real, left, begun = server.engine.create, list(outcomes), list[Restore]()

    async def create(spec: SandboxSpec) -> Placement:
        if spec.restore is not None:
            begun.append(spec.restore)
        if left:
            await left.pop(0)
        return await real(spec)

    monkeypatch.setattr(server.engine, "create", create)
    return begun


@pytest.mark.parametrize("fails", [False, True])
async def test_who_wants_a_boot_does_not_get_what_another_restores(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    sandbox = await create(server)
    await fall_asleep(server, sandbox)
    outcome = asyncio.get_running_loop().create_future()
    begun = slow_restores(server, monkeypatch, outcome)

    async def is_waking() -> bool:
        return (await row(server, sandbox)).state is State.RESUMING

    async with asyncio.TaskGroup() as group:
        first = group.create_task(call(server, sandbox, "connect"))
        await eventually(is_waking)
        second = group.create_task(call(server, sandbox, "connect", memory=False))
        await asyncio.sleep(0)
        outcome.set_exception(EngineFailed("no luck")) if fails else outcome.set_result(None)
    assert first.result().status_code == (500 if fails else 201)
    assert second.result().status_code == 201
    kinds = [SnapshotKind.MEMORY] + [SnapshotKind.FILESYSTEM] * fails
    assert [restore.kind for restore in begun] == kinds


async def test_what_took_long_to_write_may_take_long_to_read(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await create(server)
    snapshot = (await call(server, sandbox, "snapshots")).json()["snapshotID"]
    await fall_asleep(server, sandbox)
    monkeypatch.setattr(limits, "CREATE_DEADLINE_S", 0.05)

    async def late() -> None:
        await asyncio.sleep(0.1)

    slow_restores(server, monkeypatch, late())
    assert (await call(server, sandbox, "connect")).status_code == 201
    slow_restores(server, monkeypatch, late(), late())
    await create(server, templateID=snapshot)
    answer = await server.client.post("/v2/sandboxes", json={"templateID": "base"})
    assert code(answer) == (504, "sandbox_placement_timeout")


async def test_a_thaw_does_not_wait_behind_what_is_read_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RESUMES_IN_FLIGHT", 1)
    async with api_server(tmp_path) as server, asyncio.TaskGroup() as group:
        large, frozen = await create(server), await create(server, runtime="crun")
        for sandbox in (large, frozen):
            await fall_asleep(server, sandbox)
        outcome = asyncio.get_running_loop().create_future()
        begun = slow_restores(server, monkeypatch, outcome)

        async def is_reading() -> bool:
            return bool(begun)

        reading = group.create_task(call(server, large, "connect"))
        await eventually(is_reading)
        async with asyncio.timeout(5):
            assert (await call(server, frozen, "connect")).status_code == 201
        assert not reading.done()
        outcome.set_result(None)
