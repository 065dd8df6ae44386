"""A new server over the same store and engine: adopts what runs, finishes what was half done, clears the rest."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.api_server import BASE
from tests.unit.waiting import eventually
from warren.audit.memory import MemoryAudit
from warren.contracts.engine import SandboxSpec
from warren.contracts.store import IdempotencyKey, LogQuery
from warren.control import supervision
from warren.control.sandbox_start import StartRequest
from warren.control.work import Work
from warren.engine.fake.engine import FakeEngine
from warren.guest.fake import FakeGuest
from warren.model.errors import Busy, EngineFailed
from warren.model.policy import ALL_TRAFFIC, EgressPolicy
from warren.model.sandbox import EndReason, Resources, Sandbox, State
from warren.model.template import TemplateImage
from warren.settings import Settings
from warren.store.memory import MemoryStore
from warren.wiring.control import Control, build_control

pytestmark = pytest.mark.anyio


class Machine:
    """What outlives a server: its store, its engine's sandboxes, its state folder."""

    def __init__(self, state: Path) -> None:
        self.engine, self.store, self.state = FakeEngine(), MemoryStore(), state

    @asynccontextmanager
    async def server(self) -> AsyncGenerator[Control]:
        await self.engine.open()
        async with Work() as work:
            control = build_control(
                Settings(state_dir=self.state), self.engine, FakeGuest(), self.store, work, audit=MemoryAudit()
            )
            await control.supervision.adopt()
            work.spawn(control.supervision.run(), "supervision")
            yield control

    async def sandbox(self, control: Control, timeout_s: int = 300) -> Sandbox:
        project = await control.context.keys.default_project()
        request = StartRequest(template=BASE, timeout_s=timeout_s)
        return (await control.context.sandboxes.create(project, request)).sandbox

    async def row(self, sandbox: Sandbox) -> Sandbox:
        found = await self.store.sandbox(sandbox.project_id, sandbox.id)
        assert found is not None
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


async def test_what_runs_is_adopted_with_the_same_tokens_and_deadline(machine: Machine) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
        before = control.live.find(sandbox.id)
    async with machine.server() as control:
        assert control.live.find(sandbox.id) == before
        assert (await machine.row(sandbox)).expires_at == sandbox.expires_at


async def test_what_died_meanwhile_is_gone(machine: Machine) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
    await machine.engine.destroy(sandbox.id)
    async with machine.server():
        row = await machine.row(sandbox)
        assert (row.state, row.end_reason) == (State.GONE, EndReason.DIED)


async def test_after_a_restart_of_the_machine_what_ran_is_gone_for_that_reason(machine: Machine) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
    await machine.engine.destroy(sandbox.id)
    machine.engine.machine_restarted = True
    async with machine.server():
        assert (await machine.row(sandbox)).end_reason is EndReason.MACHINE_RESTARTED


async def test_rules_set_just_before_a_crash_are_those_of_the_record_afterwards(machine: Machine) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
    await machine.engine.set_egress(sandbox.id, EgressPolicy(deny=(ALL_TRAFFIC,)))
    async with machine.server():
        assert machine.engine.egress(sandbox.id) == sandbox.network.egress()


async def test_one_row_that_cannot_be_finished_does_not_keep_the_server_from_starting(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "_SWEEP_PERIOD_S", 0.01)
    async with machine.server() as control:
        sandbox, other = await machine.sandbox(control), await machine.sandbox(control)
    await machine.engine.destroy(sandbox.id)

    async def locked(*_: object) -> None:
        raise Busy

    with monkeypatch.context() as broken:
        broken.setattr(machine.store, "mark_killing", locked)
        async with machine.server() as control:
            assert control.live.find(other.id) is not None
            broken.undo()
            await eventually(lambda: _is_gone_row(machine, sandbox))


async def _is_gone_row(machine: Machine, sandbox: Sandbox) -> bool:
    return (await machine.row(sandbox)).end_reason is EndReason.DIED


async def test_what_stood_still_for_a_snapshot_when_its_server_was_killed_goes_on(machine: Machine) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
        await machine.engine.freeze(sandbox.id)
    async with machine.server() as control:
        assert control.live.find(sandbox.id) is not None
        assert not machine.engine.is_still(sandbox.id)


async def test_what_did_not_go_on_at_the_start_is_taken_over_later(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "_SWEEP_PERIOD_S", 0.01)
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)

    async def stuck(_: str) -> None:
        raise EngineFailed("cannot wake it")

    with monkeypatch.context() as broken:
        broken.setattr(machine.engine, "thaw", stuck)
        async with machine.server() as control:
            assert control.live.find(sandbox.id) is None
            broken.undo()
            await eventually(lambda: _is_routed(control, sandbox))


async def _is_routed(control: Control, sandbox: Sandbox) -> bool:
    return control.live.find(sandbox.id) is not None


async def test_a_deadline_that_passed_meanwhile_is_enforced(machine: Machine) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
    await machine.store.set_deadline(sandbox.id, datetime.now(UTC) - timedelta(seconds=5), False)
    async with machine.server():
        await eventually(lambda: _is_gone(machine, sandbox))
        assert (await machine.row(sandbox)).end_reason is EndReason.EXPIRED


async def _is_gone(machine: Machine, sandbox: Sandbox) -> bool:
    return (await machine.row(sandbox)).state is State.GONE and not await machine.engine.list()


@pytest.mark.parametrize("state", [State.CREATING, State.KILLING])
async def test_half_done_work_is_cleared(machine: Machine, state: State) -> None:
    async with machine.server() as control:
        whole = await machine.sandbox(control)
        half = replace(whole, id="i" + "b" * 20, state=state)
        await machine.store.add_sandbox(half, 100)
        await machine.engine.create(_spec(half.id))
    async with machine.server():
        assert (await machine.row(half)).state is State.GONE
        assert [placement.id for placement in await machine.engine.list()] == [whole.id]


async def test_an_end_that_broke_off_is_finished_for_its_own_reason(machine: Machine) -> None:
    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
        await machine.store.mark_killing(sandbox.id, EndReason.EXPIRED)
    async with machine.server():
        row = await machine.row(sandbox)
        assert (row.state, row.end_reason) == (State.GONE, EndReason.EXPIRED)
        assert [line.message for line in await machine.store.logs(row.id, LogQuery())] == ["sandbox ended: expired"]


async def test_a_create_that_a_crash_cut_off_frees_its_idempotency_key_at_once(machine: Machine) -> None:
    async with machine.server() as control:
        whole = await machine.sandbox(control)
        half = replace(whole, id="i" + "b" * 20, state=State.CREATING)
        await machine.store.add_sandbox(half, 100, IdempotencyKey("k", hashlib.sha256(b"body").hexdigest()))
    async with machine.server() as control:
        first, again = [await _create_once(control) for _ in range(2)]
        assert first.id == again.id != half.id


async def _create_once(control: Control) -> Sandbox:
    project = await control.context.keys.default_project()
    request = StartRequest(template=BASE, timeout_s=300)
    return (await control.context.sandboxes.create_once(project, request, "k", b"body")).sandbox


async def test_a_sandbox_that_no_record_names_is_destroyed(machine: Machine) -> None:
    await machine.engine.open()
    await machine.engine.create(_spec("i" + "c" * 20))
    async with machine.server():
        assert await machine.engine.list() == []


async def test_one_that_does_not_go_keeps_no_server_from_starting_and_goes_later(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "_SWEEP_PERIOD_S", 0.01)
    await machine.engine.open()
    await machine.engine.create(_spec("i" + "c" * 20))

    async def stuck(_: str) -> None:
        raise EngineFailed("cannot remove it")

    with monkeypatch.context() as broken:
        broken.setattr(machine.engine, "destroy", stuck)
        async with machine.server():
            assert len(await machine.engine.list()) == 1
            broken.undo()
            await eventually(lambda: _is_empty(machine))


async def _is_empty(machine: Machine) -> bool:
    return await machine.engine.list() == []


def _spec(sandbox_id: str) -> SandboxSpec:
    return SandboxSpec(sandbox_id, "runsc", TemplateImage(BASE.digest, "/nowhere"), sandbox_id, Resources())


async def test_a_store_that_fails_for_a_while_does_not_stop_the_deadlines(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def locked(*_: object) -> list[Sandbox]:
        raise Busy

    async with machine.server() as control:
        sandbox = await machine.sandbox(control)
        with monkeypatch.context() as broken:
            broken.setattr(machine.store, "overdue", locked)
            await machine.store.set_deadline(sandbox.id, datetime.now(UTC), False)
            control.watches.set_deadline(sandbox.id, datetime.now(UTC))
            await asyncio.sleep(0.05)
            assert not await _is_gone(machine, sandbox)
        await eventually(lambda: _is_gone(machine, sandbox))
