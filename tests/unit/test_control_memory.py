"""What the server does when a sandbox has come to its memory limit."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.unit.api_server import BASE
from tests.unit.waiting import eventually
from warren.audit.memory import MemoryAudit
from warren.contracts.engine import Shortage
from warren.contracts.store import LogQuery
from warren.control.sandbox_start import StartRequest
from warren.control.work import Work
from warren.engine.fake.engine import FakeEngine
from warren.guest.fake import FakeGuest
from warren.model import limits
from warren.model.sandbox import EndReason, Sandbox
from warren.settings import Settings
from warren.store.memory import MemoryStore
from warren.wiring.control import Control, build_control

pytestmark = pytest.mark.anyio


class Rig:
    def __init__(self) -> None:
        self.engine, self.guest, self.store = FakeEngine(), FakeGuest(), MemoryStore()
        self.control: Control
        self.sandbox: Sandbox

    async def logged(self) -> bool:
        entries = await self.store.logs(self.sandbox.id, LogQuery(limit=10))
        return any("out of memory" in entry.message for entry in entries)

    def counted(self) -> bool:
        return b'warren_out_of_memory_total{runtime="runsc"} 1.0' in self.control.meters.render()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig]:
    rig = Rig()
    async with Work() as work:
        rig.control = build_control(
            Settings(state_dir=tmp_path), rig.engine, rig.guest, rig.store, work, audit=MemoryAudit()
        )
        project = await rig.control.context.keys.default_project()
        request = StartRequest(template=BASE, timeout_s=300)
        rig.sandbox = (await rig.control.context.sandboxes.create(project, request)).sandbox
        yield rig


async def test_the_guest_ends_more_each_time_until_the_limit_holds(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMORY_SETTLE_LOOKS", 1)
    rig.engine.run_short(rig.sandbox.id, Shortage.GUEST, 500, 400, 400, 30, 0)
    await eventually(rig.logged)
    assert rig.guest.freed == [(500, 0), (400, 1)]
    assert rig.counted()


async def test_a_kill_of_the_kernel_is_told_and_counted(rig: Rig) -> None:
    rig.engine.run_short(rig.sandbox.id, Shortage.KERNEL)
    await eventually(rig.logged)
    assert rig.guest.freed == []
    assert rig.counted()


async def test_a_limit_that_holds_already_is_no_news(rig: Rig) -> None:
    rig.engine.run_short(rig.sandbox.id, Shortage.GUEST)
    rig.engine.run_short(rig.sandbox.id, Shortage.KERNEL)
    await eventually(rig.logged)
    assert rig.guest.freed == []
    assert rig.counted()  # the second one alone


async def test_a_guest_that_never_answers_loses_its_sandbox(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMORY_RELIEF_DEADLINE_S", 0.05)
    rig.guest.silent = True
    rig.engine.run_short(rig.sandbox.id, Shortage.GUEST, *[700] * 10_000)

    async def ended() -> bool:
        row = await rig.store.sandbox(rig.sandbox.project_id, rig.sandbox.id)
        return row is not None and row.end_reason is EndReason.OUT_OF_MEMORY

    await eventually(ended)
    assert await rig.engine.list() == []
