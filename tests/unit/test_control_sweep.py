"""What the sweep mends while the server runs: what broke off, what no route leads to; and what it leaves to others."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_control_restart import Machine
from tests.unit.test_control_sleep_restart import pausing
from tests.unit.waiting import eventually
from warren.contracts.engine import Checkpoint, Placement
from warren.control import supervision
from warren.control.pausing import PauseRequest
from warren.guest.fake import FakeGuest
from warren.model import limits
from warren.model.errors import EngineFailed, NoSpace, SandboxChanging, SandboxPaused
from warren.model.pause import Lifecycle
from warren.model.policy import ALL_TRAFFIC, EgressPolicy
from warren.model.sandbox import EndReason, Sandbox, State
from warren.wiring.control import Control

pytestmark = pytest.mark.anyio


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


async def _is_gone(machine: Machine, sandbox: Sandbox) -> bool:
    return (await machine.row(sandbox)).state is State.GONE


async def test_who_comes_to_a_pause_under_way_and_is_refused_leaves_it_alone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    checkpoint = machine.engine.checkpoint

    async def slow(*args: Any, **options: Any) -> Checkpoint:
        begun.set()
        await go_on.wait()
        return await checkpoint(*args, **options)

    monkeypatch.setattr(machine.engine, "checkpoint", slow)
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
        project = await control.context.keys.default_project()
        pausing = asyncio.create_task(control.pausing.pause(project, sandbox, PauseRequest()))
        await begun.wait()
        with pytest.raises(SandboxPaused):
            await control.pausing.pause(project, sandbox, PauseRequest())
        await control.supervision.sweep()
        assert (await machine.row(sandbox)).state is State.PAUSING
        go_on.set()
        await pausing
        assert (await machine.row(sandbox)).state is State.PAUSED
        assert not control.pausing.is_at_work(sandbox.id)


class SlowThaw:
    """The next thaw takes until `go_on`."""

    def __init__(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = machine.engine.thaw
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(machine.engine, "thaw", self.thaw)

    async def thaw(self, sandbox_id: str) -> None:
        self.begun.set()
        await self.go_on.wait()
        await self._real(sandbox_id)


async def _pause_in_vain(machine: Machine, control: Control, sandbox: Sandbox) -> None:
    """Refused, without a trace: what follows leaves it running."""
    project = await control.context.keys.default_project()
    with pytest.raises(SandboxChanging):
        await control.pausing.pause(project, await machine.row(sandbox), PauseRequest())
    await control.pausing.at_deadline(await machine.row(sandbox))
    assert (await machine.row(sandbox)).state is State.RUNNING


async def test_no_pause_begins_while_one_that_failed_is_taken_back(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
        project = await control.context.keys.default_project()
        slow = SlowThaw(machine, monkeypatch)
        monkeypatch.setattr(machine.engine, "checkpoint", _no)
        failing = asyncio.create_task(control.pausing.pause(project, sandbox, PauseRequest()))
        await slow.begun.wait()
        await _pause_in_vain(machine, control, sandbox)
        slow.go_on.set()
        with pytest.raises(EngineFailed):
            await failing
        monkeypatch.undo()
        await control.pausing.pause(project, await machine.row(sandbox), PauseRequest())
        row = await machine.row(sandbox)
        assert row.pause is not None
        assert (row.state, row.pause.guest_silent) == (State.PAUSED, False)


async def test_no_pause_begins_while_one_that_broke_off_is_taken_back(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.server() as control:
        sandbox = await pausing(machine, control)
        slow = SlowThaw(machine, monkeypatch)
        sweeping = asyncio.create_task(control.supervision.sweep())
        await slow.begun.wait()
        await _pause_in_vain(machine, control, sandbox)
        slow.go_on.set()
        await sweeping
        assert control.live.find(sandbox.id) is not None


async def _no(*_: object, **__: object) -> None:
    raise EngineFailed("cannot do it: not today")


async def test_one_that_cannot_be_mended_keeps_no_other_from_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.server() as control:
        broken, other = await pausing(machine, control), await pausing(machine, control)
        for sandbox in (broken, other):
            control.live.remove(sandbox.id)
        thaw = machine.engine.thaw

        async def stuck(sandbox_id: str) -> None:
            await (_no() if sandbox_id == broken.id else thaw(sandbox_id))

        monkeypatch.setattr(machine.engine, "thaw", stuck)
        await control.supervision.sweep()
        assert control.live.find(other.id) is not None
        assert control.live.find(broken.id) is None
        monkeypatch.undo()
        await control.supervision.sweep()
        assert control.live.find(broken.id) is not None


async def test_what_stood_still_after_a_failed_pause_and_was_not_to_be_woken_is_woken_later(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
        before = control.live.find(sandbox.id)
        project = await control.context.keys.default_project()
        await machine.engine.freeze(sandbox.id)
        with monkeypatch.context() as broken:
            broken.setattr(machine.engine, "checkpoint", _no)
            broken.setattr(machine.engine, "thaw", _no)
            with pytest.raises(EngineFailed):
                await control.pausing.pause(project, sandbox, PauseRequest())
            await control.supervision.sweep()
        row = await machine.row(sandbox)
        assert (row.state, control.live.find(sandbox.id)) == (State.RUNNING, None)
        await control.supervision.sweep()
        assert control.live.find(sandbox.id) == before
        assert not machine.engine.is_still(sandbox.id)
        machine.engine.kill_guest(sandbox.id)
        await eventually(lambda: _is_gone(machine, sandbox))


async def test_what_slept_and_was_not_cleared_is_cleared_later(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
        project = await control.context.keys.default_project()
        with monkeypatch.context() as broken:
            broken.setattr(machine.engine, "destroy", _no)
            await control.pausing.pause(project, sandbox, PauseRequest())
        assert len(await machine.engine.list()) == 1
        await control.supervision.sweep()
        assert await machine.engine.list() == []
        assert (await machine.row(sandbox)).state is State.PAUSED
        assert (await control.context.sandboxes.connect(project, sandbox.id, 60))[1]


async def test_what_slept_and_could_not_be_looked_at_at_the_start_can_be_woken_by_traffic_later(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
        project = await control.context.keys.default_project()
        await control.pausing.pause(project, sandbox, PauseRequest())
    with monkeypatch.context() as broken:
        broken.setattr(machine.engine, "destroy", _no)
        async with machine.server() as control:
            assert not control.live.is_asleep(sandbox.id)
            broken.undo()
            await control.supervision.sweep()
            assert control.live.is_asleep(sandbox.id)
            assert (await machine.row(sandbox)).state is State.PAUSED


async def test_what_is_woken_while_the_sweep_clears_it_lives(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
        project = await control.context.keys.default_project()
        with monkeypatch.context() as broken:
            broken.setattr(machine.engine, "destroy", _no)
            await control.pausing.pause(project, sandbox, PauseRequest())
        looking, go_on, checkpoints = asyncio.Event(), asyncio.Event(), machine.engine.checkpoints

        async def slow() -> Sequence[Checkpoint]:
            looking.set()
            await go_on.wait()
            return await checkpoints()

        monkeypatch.setattr(machine.engine, "checkpoints", slow)
        sweeping = asyncio.create_task(control.supervision.sweep())
        await looking.wait()
        waking = asyncio.create_task(control.context.sandboxes.connect(project, sandbox.id, 60))
        await asyncio.sleep(0.05)
        go_on.set()
        await sweeping
        assert (await waking)[1]
        assert (await machine.row(sandbox)).state is State.RUNNING
        assert len(await machine.engine.list()) == 1


async def test_what_runs_and_could_not_be_taken_over_at_the_start_is_later(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
    with monkeypatch.context() as broken:
        broken.setattr(machine.engine, "thaw", _no)
        async with machine.server() as control:
            assert control.live.find(sandbox.id) is None
            broken.undo()
            await control.supervision.sweep()
            assert control.live.find(sandbox.id) is not None


async def test_what_is_being_ended_is_not_taken_over_again(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    destroy = machine.engine.destroy

    async def slow(sandbox_id: str) -> None:
        begun.set()
        await go_on.wait()
        await destroy(sandbox_id)

    async def full(*_: object) -> None:
        raise NoSpace

    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
        project = await control.context.keys.default_project()
        monkeypatch.setattr(machine.engine, "destroy", slow)
        monkeypatch.setattr(machine.store, "mark_killing", full)
        ending = asyncio.create_task(control.context.sandboxes.kill(project, sandbox.id))
        await begun.wait()
        await control.supervision.sweep()
        assert control.live.find(sandbox.id) is None
        go_on.set()
        await ending
        assert (await machine.row(sandbox)).end_reason is EndReason.KILLED


async def test_a_slow_guest_is_asked_once_before_the_pause_at_its_deadline(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, asked, go_on = 0, 0, asyncio.Event()
    monkeypatch.setattr(limits, "WISH_PERIOD_S", 0.001)
    overdue = machine.store.overdue

    async def counted(server_id: str, now: datetime) -> Sequence[Sandbox]:
        nonlocal looks
        looks += 1
        return await overdue(server_id, now)

    async def slow(*_: object) -> None:
        nonlocal asked
        asked += 1
        await go_on.wait()

    async def looked_often() -> bool:
        return looks > 10

    async def is_paused() -> bool:
        return (await machine.row(sandbox)).state is State.PAUSED

    monkeypatch.setattr(FakeGuest, "retain_envs", slow)
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
        row = await machine.row(sandbox)
        machine.store._put(  # pyright: ignore[reportPrivateUsage]
            replace(row, expires_at=row.started_at, lifecycle=Lifecycle(auto_pause=True))
        )
        monkeypatch.setattr(machine.store, "overdue", counted)
        await eventually(looked_often)
        assert asked == 1
        go_on.set()
        await eventually(is_paused)


# --- what takes long ---------------------------------------------------------------------------------------


async def test_one_that_thaws_for_long_holds_up_neither_the_others_nor_the_sweep(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "_MENDS_WAITED_FOR_S", 0.05)
    go_on, thaw = asyncio.Event(), machine.engine.thaw
    async with machine.server() as control:
        slow, other = await pausing(machine, control), await pausing(machine, control)
        for sandbox in (slow, other):
            control.live.remove(sandbox.id)

        async def late(sandbox_id: str) -> None:
            if sandbox_id == slow.id:
                await go_on.wait()
            await thaw(sandbox_id)

        async def is_back() -> bool:
            return control.live.find(slow.id) is not None

        monkeypatch.setattr(machine.engine, "thaw", late)
        async with asyncio.timeout(5):
            await control.supervision.sweep()
            await control.supervision.sweep()
        assert control.live.find(other.id) is not None
        assert not await is_back()
        go_on.set()
        await eventually(is_back)


async def test_a_server_that_starts_takes_over_many_at_a_time(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.server() as control:
        sandboxes = [await machine.sandbox(control) for _ in range(3)]
    at_work, all_at_work, thaw = list[str](), asyncio.Event(), machine.engine.thaw

    async def late(sandbox_id: str) -> None:
        at_work.append(sandbox_id)
        if len(at_work) == len(sandboxes):
            all_at_work.set()
        await all_at_work.wait()
        await thaw(sandbox_id)

    monkeypatch.setattr(machine.engine, "thaw", late)
    async with asyncio.timeout(5), machine.server() as control:
        assert all(control.live.find(sandbox.id) for sandbox in sandboxes)


async def test_what_stood_still_at_the_start_wakes_under_the_rules_of_the_record(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
        await machine.engine.freeze(sandbox.id)
        await machine.engine.set_egress(sandbox.id, EgressPolicy(deny=(ALL_TRAFFIC,)))
    under, thaw = list[EgressPolicy](), machine.engine.thaw

    async def watched(sandbox_id: str) -> None:
        under.append(machine.engine.egress(sandbox_id))
        await thaw(sandbox_id)

    monkeypatch.setattr(machine.engine, "thaw", watched)
    async with machine.server():
        assert under == [sandbox.network.egress()]


async def test_what_was_resumed_since_the_sweep_began_is_not_too_old(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
        project = await control.context.keys.default_project()
        await control.context.sandboxes.pause(project, sandbox.id, PauseRequest())
        row = await machine.row(sandbox)
        assert row.pause is not None
        aged = replace(row.pause, at=row.pause.at.replace(year=row.pause.at.year - 1))
        machine.store._put(replace(row, pause=aged))  # pyright: ignore[reportPrivateUsage]
        listed = machine.engine.list

        async def late() -> Sequence[Placement]:
            found = await listed()
            monkeypatch.undo()
            await control.context.sandboxes.connect(project, sandbox.id, 60)
            return found

        monkeypatch.setattr(machine.engine, "list", late)
        await control.supervision.sweep()
        await asyncio.sleep(0.02)
        assert (await machine.row(sandbox)).state is State.RUNNING
