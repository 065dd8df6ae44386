"""A server that is killed at any step of a pause or a resume: the next one finds the sandbox running or paused."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.test_control_restart import Machine
from tests.unit.waiting import eventually
from warren.control.pausing import PauseRequest
from warren.model.errors import EngineFailed
from warren.model.pause import Pause, PauseCause, PauseKind
from warren.model.sandbox import EndReason, Sandbox, State
from warren.model.snapshot import SnapshotKind
from warren.wiring.control import Control

pytestmark = pytest.mark.anyio

CHECKPOINT = "c" + "x" * 20


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


async def paused(machine: Machine, control: Control) -> Sandbox:
    sandbox = await machine.sandbox(control)
    project = await control.context.keys.default_project()
    await control.context.sandboxes.pause(project, sandbox.id, PauseRequest())
    return sandbox


async def pausing(machine: Machine, control: Control, kind: PauseKind = PauseKind.MEMORY) -> Sandbox:
    """As far as a pause is before anything is on disk."""
    sandbox = await machine.sandbox(control)
    checkpoint = None if kind is PauseKind.FROZEN else CHECKPOINT
    pause = Pause(checkpoint, kind, PauseCause.OWNER, sandbox.started_at)
    assert await machine.store.claim_pause(sandbox.id, pause) is not None
    return sandbox


async def _is_gone(machine: Machine, sandbox: Sandbox) -> bool:
    return (await machine.row(sandbox)).state is State.GONE


async def places(machine: Machine) -> tuple[list[str], list[str]]:
    running = [placement.id for placement in await machine.engine.list()]
    return running, [checkpoint.id for checkpoint in await machine.engine.checkpoints()]


async def test_what_sleeps_sleeps_on_and_can_be_resumed(machine: Machine) -> None:
    async with machine.server() as control:
        sandbox = await paused(machine, control)
    async with machine.server() as control:
        assert (await machine.row(sandbox)).state is State.PAUSED
        assert len((await places(machine))[1]) == 1
        project = await control.context.keys.default_project()
        assert (await control.context.sandboxes.connect(project, sandbox.id, 60))[1]
        assert await places(machine) == ([sandbox.id], [])


async def test_what_slept_and_does_not_go_is_paused_and_wakes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stuck(_: str) -> None:
        raise EngineFailed("cannot remove it")

    async with machine.server() as control:
        with monkeypatch.context() as broken:
            broken.setattr(machine.engine, "destroy", stuck)
            sandbox = await paused(machine, control)
        assert (await machine.row(sandbox)).state is State.PAUSED
        project = await control.context.keys.default_project()
        assert (await control.context.sandboxes.connect(project, sandbox.id, 60))[1]
        assert await places(machine) == ([sandbox.id], [])


async def test_what_sleeps_in_a_checkpoint_that_cannot_be_read_is_not_given_up(machine: Machine) -> None:
    async with machine.server() as control:
        sandbox = await paused(machine, control)
    kept = machine.engine.machine.checkpoints
    for name, checkpoint in kept.items():
        kept[name] = replace(checkpoint, unreadable="another version wrote it")
    async with machine.server() as control:
        assert (await machine.row(sandbox)).state is State.PAUSED
        await control.supervision.sweep()
        assert len(kept) == 1
        project = await control.context.keys.default_project()
        await control.context.sandboxes.kill(project, sandbox.id)
        await eventually(lambda: _are_forgotten(machine))


async def _are_forgotten(machine: Machine) -> bool:
    return not machine.engine.machine.checkpoints


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_pause_that_was_not_written_down_is_taken_back(machine: Machine, is_written: bool) -> None:
    async with machine.server() as control:
        sandbox = await pausing(machine, control)
        if is_written:
            await machine.engine.checkpoint(sandbox.id, CHECKPOINT, SnapshotKind.MEMORY, hold=True)
    async with machine.server() as control:
        row = await machine.row(sandbox)
        assert (row.state, row.pause, row.expires_at) == (State.RUNNING, None, sandbox.expires_at)
        assert not machine.engine.is_still(sandbox.id)
        assert await places(machine) == ([sandbox.id], [])
        assert control.live.find(sandbox.id) is not None


async def test_a_pause_that_was_written_down_is_finished(machine: Machine) -> None:
    async with machine.server() as control:
        sandbox = await pausing(machine, control)
        await machine.engine.checkpoint(sandbox.id, CHECKPOINT, SnapshotKind.MEMORY, hold=True)
        await machine.store.mark_paused(sandbox.id, 1)
    async with machine.server():
        assert (await machine.row(sandbox)).state is State.PAUSED
        assert await places(machine) == ([], [CHECKPOINT])


async def test_a_whole_checkpoint_is_enough_when_the_machine_went_down_before_it_was_noted(machine: Machine) -> None:
    async with machine.server() as control:
        sandbox = await pausing(machine, control)
        await machine.engine.checkpoint(sandbox.id, CHECKPOINT, SnapshotKind.MEMORY, hold=True)
        await machine.engine.destroy(sandbox.id)
    async with machine.server():
        assert (await machine.row(sandbox)).state is State.PAUSED
        assert await places(machine) == ([], [CHECKPOINT])


async def test_a_sandbox_that_went_down_without_a_checkpoint_has_died(machine: Machine) -> None:
    async with machine.server() as control:
        sandbox = await pausing(machine, control)
        await machine.engine.destroy(sandbox.id)
    async with machine.server():
        row = await machine.row(sandbox)
        assert (row.state, row.end_reason) == (State.GONE, EndReason.DIED)


@pytest.mark.parametrize("is_started", [False, True])
async def test_a_resume_that_broke_off_leaves_it_paused_and_in_one_place(machine: Machine, is_started: bool) -> None:
    async with machine.server() as control:
        sandbox = await pausing(machine, control)
        await machine.engine.checkpoint(sandbox.id, CHECKPOINT, SnapshotKind.MEMORY, hold=True)
        await machine.store.mark_paused(sandbox.id, 1)
        if not is_started:
            await machine.engine.destroy(sandbox.id)
        await machine.store.claim_resume(sandbox.project_id, sandbox.id, 100)
    async with machine.server() as control:
        assert (await machine.row(sandbox)).state is State.PAUSED
        assert await places(machine) == ([], [CHECKPOINT])
        assert control.live.find(sandbox.id) is None


@pytest.mark.parametrize("step", [State.PAUSING, State.PAUSED, State.RESUMING])
async def test_what_is_frozen_in_memory_is_found_again(machine: Machine, step: State) -> None:
    async with machine.server() as control:
        sandbox = await pausing(machine, control, PauseKind.FROZEN)
        await machine.engine.freeze(sandbox.id)
        if step is not State.PAUSING:
            await machine.store.mark_paused(sandbox.id, 0)
        if step is State.RESUMING:
            await machine.store.claim_resume(sandbox.project_id, sandbox.id, 100)
            await machine.engine.thaw(sandbox.id)
    async with machine.server():
        runs_on = step is State.PAUSING
        assert (await machine.row(sandbox)).state is (State.RUNNING if runs_on else State.PAUSED)
        assert machine.engine.is_still(sandbox.id) is not runs_on


async def test_what_was_frozen_is_lost_with_the_machine_and_the_row_says_so(machine: Machine) -> None:
    async with machine.server() as control:
        sandbox = await pausing(machine, control, PauseKind.FROZEN)
        await machine.engine.freeze(sandbox.id)
        await machine.store.mark_paused(sandbox.id, 0)
    await machine.engine.destroy(sandbox.id)
    async with machine.server():
        assert (await machine.row(sandbox)).state is State.GONE


async def test_a_paused_sandbox_whose_checkpoint_is_gone_is_not_shown_as_one(machine: Machine) -> None:
    async with machine.server() as control:
        sandbox = await paused(machine, control)
    await machine.engine.forget((await places(machine))[1][0])
    async with machine.server():
        assert (await machine.row(sandbox)).state is State.GONE


async def test_what_nothing_stands_on_is_deleted_at_start_and_snapshots_stay(machine: Machine) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
        project = await control.context.keys.default_project()
        snapshot = await control.context.sandboxes.snapshot(project, sandbox.id, None, memory=None)
        await machine.engine.checkpoint(sandbox.id, CHECKPOINT, SnapshotKind.MEMORY, hold=False)
    async with machine.server():
        assert (await places(machine))[1] == [snapshot.checkpoint_id]


async def test_a_pause_or_resume_that_broke_off_is_mended_by_the_sweep_and_one_under_way_is_left(
    machine: Machine,
) -> None:
    async with machine.server() as control:
        broken, busy = await pausing(machine, control), await pausing(machine, control)
        with control.pausing.at_work(busy.id):
            await control.supervision.sweep()
            assert (await machine.row(broken)).state is State.RUNNING
            assert (await machine.row(busy)).state is State.PAUSING


async def test_sandboxes_that_slept_for_too_long_end_and_the_row_says_why(machine: Machine) -> None:
    async with machine.server() as control:
        old, young = await paused(machine, control), await paused(machine, control)
        row = await machine.row(old)
        assert row.pause is not None
        days = (await control.context.keys.default_project()).limits.paused_days
        aged = replace(row.pause, at=row.pause.at.replace(year=row.pause.at.year - 1))
        machine.store._put(replace(row, pause=aged))  # pyright: ignore[reportPrivateUsage]
        assert days < 365
        await control.supervision.sweep()
        await eventually(lambda: _is_gone(machine, old))
        assert (await machine.row(old)).end_reason is EndReason.PAUSED_TOO_LONG
        assert (await machine.row(young)).state is State.PAUSED
