"""The idle ladder over the in-memory engine, guest and store."""

import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_server import ApiServer, api_server
from tests.unit.waiting import eventually
from warren.control.activity import Activity
from warren.control.clock import SystemClock
from warren.model import limits
from warren.model.errors import Forbidden, SandboxNotFound, SandboxPaused
from warren.model.idle import Ladder
from warren.model.pause import PauseCause, PauseKind
from warren.model.sandbox import Sandbox, State

pytestmark = pytest.mark.anyio

LADDER = ("base=10/20/30",)
Idle = Callable[[float], None]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[ApiServer]:
    async with api_server(tmp_path, idle=LADDER) as running:
        yield running


@pytest.fixture
def idle(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Idle:
    """Says for how many seconds every sandbox has been idle from now on."""

    def be(seconds: float) -> None:
        monkeypatch.setattr(server.control.activity, "idle_for", lambda _: timedelta(seconds=seconds))

    return be


async def create(server: ApiServer, **fields: object) -> str:
    answer = await server.client.post("/v2/sandboxes", json={"templateID": "base", "timeout": 60, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()["sandboxID"]


async def row(server: ApiServer, sandbox: str) -> Sandbox:
    found = await server.store.sandbox(server.project.id, sandbox)
    assert found is not None
    return found


async def test_it_sleeps_deeper_the_longer_nobody_uses_it(server: ApiServer, idle: Idle) -> None:
    sandbox = await create(server)
    for seconds, kinds in ((9, None), (10, PauseKind.FROZEN), (20, PauseKind.FROZEN), (30, PauseKind.MEMORY)):
        idle(seconds)
        await server.control.idleness.look()
        pause = (await row(server, sandbox)).pause
        assert (None if pause is None else pause.kind) is kinds
    assert await server.engine.list() == []
    assert len(await server.engine.checkpoints()) == 1


async def test_a_runtime_that_keeps_no_memory_stays_in_memory(server: ApiServer, idle: Idle) -> None:
    sandbox = await create(server, runtime="crun")
    idle(10**6)
    await server.control.idleness.look()
    pause = (await row(server, sandbox)).pause
    assert pause is not None
    assert pause.kind is PauseKind.FROZEN


@pytest.mark.parametrize("seconds", [10, 30])
async def test_traffic_wakes_it_and_its_deadline_stays(server: ApiServer, idle: Idle, seconds: float) -> None:
    sandbox = await create(server)
    before = await row(server, sandbox)
    idle(seconds)
    await server.control.idleness.look()
    assert await server.control.waking.asleep(sandbox) is not None
    await server.control.waking.wake(sandbox)
    after = await row(server, sandbox)
    assert (after.state, after.expires_at) == (State.RUNNING, before.expires_at)


@pytest.mark.parametrize("seconds", [10, 20, 30])
async def test_what_was_revoked_while_it_slept_holds_at_every_step(
    server: ApiServer, idle: Idle, seconds: float
) -> None:
    sandbox, project, waking = await create(server), server.project, server.control.waking
    idle(seconds)
    await server.control.idleness.look()
    await server.store.set_limits(project.id, replace(project.limits, memory_mb=1))
    with pytest.raises(Forbidden, match="memoryMB"):
        await waking.wake(sandbox)
    asked = await server.client.post(f"/sandboxes/{sandbox}/timeout", json={"timeout": 100})
    assert (asked.status_code, (await row(server, sandbox)).state) == (403, State.PAUSED)
    await server.store.set_limits(project.id, project.limits)
    for key in await server.control.context.keys.list(project):
        await server.control.context.keys.revoke(project, key.id)
    with pytest.raises(Forbidden, match="no key of its project"):
        await waking.wake(sandbox)
    assert (await row(server, sandbox)).state is State.PAUSED


async def test_what_its_owner_asks_finds_it_awake(server: ApiServer, idle: Idle) -> None:
    sandbox = await create(server)
    idle(10)
    await server.control.idleness.look()
    assert (await server.client.post(f"/sandboxes/{sandbox}/timeout", json={"timeout": 100})).status_code == 204
    assert (await row(server, sandbox)).state is State.RUNNING
    await server.control.idleness.look()
    assert (await server.client.post(f"/sandboxes/{sandbox}/pause", json={})).status_code == 204
    pause = (await row(server, sandbox)).pause
    assert pause is not None
    assert (pause.kind, pause.by.value) == (PauseKind.MEMORY, "owner")


async def test_its_deadline_ends_it_asleep_or_not(server: ApiServer, idle: Idle) -> None:
    sandbox = await create(server, timeout=1)
    idle(30)
    await server.control.idleness.look()

    async def is_gone() -> bool:
        return (await row(server, sandbox)).state is State.GONE

    await eventually(is_gone)
    assert await server.engine.checkpoints() == []


@pytest.mark.parametrize("seconds", [10, 30])
async def test_at_its_deadline_it_is_paused_where_the_owner_wished_so(
    server: ApiServer, idle: Idle, seconds: float
) -> None:
    sandbox = await create(server, timeout=1, autoPause=True)
    idle(seconds)
    await server.control.idleness.look()

    async def is_paused() -> bool:
        found = await row(server, sandbox)
        kept = found.pause is not None and (found.pause.kind, found.pause.by.value) == (PauseKind.MEMORY, "deadline")
        return found.state is State.PAUSED and kept

    await eventually(is_paused)


async def test_what_may_not_wake_at_its_deadline_stays_frozen_as_its_owner_s(server: ApiServer, idle: Idle) -> None:
    sandbox, project = await create(server, timeout=1, autoPause=True), server.project
    idle(10)
    await server.control.idleness.look()
    await server.store.set_limits(project.id, replace(project.limits, memory_mb=1))

    async def is_kept() -> bool:
        found = await row(server, sandbox)
        return found.pause is not None and found.pause.by.value == "deadline"

    await eventually(is_kept)
    kept = await row(server, sandbox)
    assert kept.pause is not None
    assert (kept.state, kept.pause.kind) == (State.PAUSED, PauseKind.FROZEN)
    assert kept not in await server.store.overdue(kept.server_id, datetime.now(UTC))


async def test_a_template_s_own_ladder_comes_before_the_server_s(server: ApiServer, idle: Idle) -> None:
    sandbox = await create(server)
    template, now = (await row(server, sandbox)).template_id, datetime.now(UTC)
    idle(10)
    for ladder, state in ((Ladder(), State.RUNNING), (Ladder(11), State.RUNNING), (None, State.PAUSED)):
        await server.store.set_ladder(template, ladder, now)
        await server.control.idleness.look()
        assert (await row(server, sandbox)).state is state


async def test_who_is_used_stays_awake(server: ApiServer) -> None:
    sandbox = await create(server)
    await server.control.idleness.look()
    assert (await row(server, sandbox)).state is State.RUNNING


async def test_requests_and_work_make_a_sandbox_busy() -> None:
    now = [100.0]
    activity = Activity(lambda: now[0])
    assert activity.idle_for("i") == timedelta()
    activity.enter("i")
    activity.enter("i")
    now[0] += 100
    activity.leave("i")
    assert activity.idle_for("i") == timedelta()
    activity.leave("i")
    now[0] += 5
    assert activity.idle_for("i") == timedelta(seconds=5)
    activity.worked("i", limits.IDLE_CPU_PCT / 2)
    assert activity.idle_for("i") == timedelta(seconds=5)
    activity.worked("i", limits.IDLE_CPU_PCT)
    assert activity.idle_for("i") == timedelta()


# --- what happens between the look and the step ------------------------------------------------------------


def before(monkeypatch: pytest.MonkeyPatch, owner: object, method: str, act: Callable[[], object]) -> list[int]:
    """`act` gets in before each call of `method`; how many there were is counted."""
    real, calls = getattr(owner, method), list[int]()

    async def late(*given: Any, **named: Any) -> Any:
        calls.append(len(calls))
        act()
        return await real(*given, **named)

    monkeypatch.setattr(owner, method, late)
    return calls


@pytest.fixture
def aged(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Idle:
    """Lets the real account of activity grow older by so many seconds."""
    passed = [0.0]
    monkeypatch.setattr(server.control.activity, "_seconds", lambda: time.monotonic() + passed[0])

    def grow(seconds: float) -> None:
        passed[0] += seconds

    return grow


async def known(server: ApiServer, **fields: object) -> str:
    """A sandbox whose idleness counts from now on."""
    sandbox = await create(server, **{"timeout": 1000, **fields})
    await server.control.idleness.look()
    return sandbox


async def test_a_request_that_comes_while_its_pause_begins_is_not_cut(
    server: ApiServer, aged: Idle, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox, cut = await known(server), list[str]()
    server.control.live.on_gone(cut.append)
    aged(10)
    calls = before(monkeypatch, server.store, "claim_pause", lambda: server.control.activity.enter(sandbox))
    await server.control.idleness.look()
    found = await row(server, sandbox)
    assert (len(calls), found.state, found.pause) == (1, State.RUNNING, None)
    assert not cut
    assert server.control.live.find(sandbox) is not None


async def test_who_is_used_while_others_are_written_to_disk_is_left_alone(
    server: ApiServer, aged: Idle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "IDLE_STEPS_AT_ONCE", 1)
    two = [await known(server) for _ in range(2)]
    aged(30)

    def use_both() -> None:
        for sandbox in two:
            server.control.activity.enter(sandbox)
            server.control.activity.leave(sandbox)

    before(monkeypatch, server.engine, "destroy", use_both)
    calls = before(monkeypatch, server.guest, "retain_envs", lambda: None)
    await server.control.idleness.look()
    assert sorted([(await row(server, sandbox)).state for sandbox in two]) == [State.PAUSED, State.RUNNING]
    assert len(calls) == 1


async def test_what_was_paused_otherwise_while_others_went_is_left_alone(
    server: ApiServer, aged: Idle, monkeypatch: pytest.MonkeyPatch
) -> None:
    await known(server)
    aged(10)
    await server.control.idleness.look()
    aged(20)
    real = server.store.sandbox

    async def behind_the_gate(project_id: str, sandbox_id: str) -> Sandbox | None:
        await server.store.keep_asleep(sandbox_id, PauseCause.DEADLINE)
        return await real(project_id, sandbox_id)

    monkeypatch.setattr(server.store, "sandbox", behind_the_gate)
    calls = before(monkeypatch, server.engine, "thaw", lambda: None)
    await server.control.idleness.look()
    assert not calls


@pytest.mark.parametrize("verb", ["connect", "timeout", "refreshes", "fork", "snapshots"])
async def test_what_its_owner_asks_counts_as_use(server: ApiServer, aged: Idle, verb: str) -> None:
    sandbox = await known(server)
    aged(30)
    await server.control.idleness.look()
    assert (await row(server, sandbox)).state is State.PAUSED
    aged(30)
    body = {"timeout": 500} if verb in ("connect", "timeout") else {}
    assert (await server.client.post(f"/sandboxes/{sandbox}/{verb}", json=body)).is_success
    await server.control.idleness.look()
    assert (await row(server, sandbox)).state is State.RUNNING


async def test_what_traffic_woke_is_in_use_before_its_request_gets_there(server: ApiServer, aged: Idle) -> None:
    sandbox = await known(server)
    aged(30)
    await server.control.idleness.look()
    await server.control.waking.wake(sandbox)
    await server.control.idleness.look()
    assert (await row(server, sandbox)).state is State.RUNNING


async def paused_by_its_owner(server: ApiServer, sandbox: str) -> None:
    for verb, body in (("connect", {"timeout": 100}), ("pause", {})):
        assert (await server.client.post(f"/sandboxes/{sandbox}/{verb}", json=body)).is_success


async def test_what_its_owner_paused_meanwhile_is_not_woken_as_idle(server: ApiServer, aged: Idle) -> None:
    sandbox = await known(server)
    aged(30)
    await server.control.idleness.look()
    idle_one = await row(server, sandbox)
    await paused_by_its_owner(server, sandbox)
    with pytest.raises(SandboxPaused):
        await server.control.idleness._resuming.wake_idle(idle_one)  # pyright: ignore[reportPrivateUsage]
    after = await row(server, sandbox)
    assert after.pause is not None
    assert (after.state, after.pause.by) == (State.PAUSED, PauseCause.OWNER)


@pytest.mark.parametrize("wakes", [True, False])
async def test_traffic_to_what_its_owner_paused_meanwhile_does_as_he_wished(
    server: ApiServer, aged: Idle, monkeypatch: pytest.MonkeyPatch, wakes: bool
) -> None:
    sandbox = await known(server, autoPause=True, autoResume={"enabled": wakes})
    aged(30)
    await server.control.idleness.look()
    real, left = server.store.keys, [1]

    async def late(project_id: str) -> Any:
        if left.pop() if left else 0:
            await paused_by_its_owner(server, sandbox)
        return await real(project_id)

    monkeypatch.setattr(server.store, "keys", late)
    with contextlib.nullcontext() if wakes else pytest.raises(SandboxNotFound):
        await server.control.waking.wake(sandbox)
    after = await row(server, sandbox)
    assert after.state is (State.RUNNING if wakes else State.PAUSED)
    assert not wakes or after.expires_at > datetime.now(UTC) + timedelta(seconds=500)


# --- a step to disk that is refused ------------------------------------------------------------------------


async def frozen(server: ApiServer, idle: Idle) -> str:
    sandbox = await create(server)
    idle(10)
    await server.control.idleness.look()
    return sandbox


async def test_what_may_not_go_to_disk_is_not_woken_for_it(
    server: ApiServer, idle: Idle, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await frozen(server, idle)
    await server.store.set_limits(server.project.id, replace(server.project.limits, snapshot_mb=0))
    calls = before(monkeypatch, server.engine, "thaw", lambda: None)
    idle(30)
    await server.control.idleness.look()
    assert not calls
    assert server.engine.is_still(sandbox)


async def test_what_cannot_go_to_disk_is_frozen_again_and_not_tried_at_every_look(
    server: ApiServer, idle: Idle, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await frozen(server, idle)
    server.engine.machine.is_full = True
    calls = before(monkeypatch, server.engine, "checkpoint", lambda: None)
    idle(30)
    for _ in range(4):
        await server.control.idleness.look()
    assert len(calls) == 1
    assert server.engine.is_still(sandbox)
    server.engine.machine.is_full = False
    monkeypatch.setattr(server.control.idleness, "_refused", {sandbox: 0.0})
    await server.control.idleness.look()
    found = await row(server, sandbox)
    assert found.pause is not None
    assert found.pause.kind is PauseKind.MEMORY


# --- the account of activity -------------------------------------------------------------------------------


async def test_where_no_ladder_asks_nothing_is_remembered(tmp_path: Path) -> None:
    async with api_server(tmp_path) as server:
        activity = server.control.activity
        for number in range(3):
            activity.worked(f"i{number}", 100)
        await server.control.idleness.look()
        assert not activity._last  # pyright: ignore[reportPrivateUsage]  # nothing else shows what it holds


async def test_a_wall_clock_that_jumps_puts_nobody_to_sleep(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = await known(server)
    monkeypatch.setattr(SystemClock, "now", lambda _: datetime.now(UTC) + timedelta(seconds=500))
    await server.control.idleness.look()
    assert (await row(server, sandbox)).state is State.RUNNING
