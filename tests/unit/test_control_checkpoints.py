"""Checkpoints that nobody stands on are deleted, and no others."""

import asyncio

import pytest

from warren.contracts.engine import SandboxSpec
from warren.control.checkpoints import Checkpoints
from warren.control.clock import SystemIds
from warren.engine.fake.engine import FakeEngine
from warren.model.sandbox import Resources
from warren.model.snapshot import SnapshotKind
from warren.model.template import TemplateImage
from warren.store.memory import MemoryStore

pytestmark = pytest.mark.anyio


class SlowStore(MemoryStore):
    """Answers with the rows of when it was asked, and lets things happen before that."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def referenced_checkpoints(self) -> frozenset[str]:
        found = await super().referenced_checkpoints()
        self.asked.set()
        await self.go_on.wait()
        return found


async def test_what_is_finished_while_the_sweep_looks_at_rows_is_kept() -> None:
    engine, store, leased = FakeEngine(), SlowStore(), set[str]()
    checkpoints = Checkpoints(engine=engine, store=store, ids=SystemIds(), layers=lambda: frozenset(leased))
    spec = SandboxSpec("i" * 20, "runsc", TemplateImage("sha256:0", "image"), "box", Resources(1, 128, 128))
    await engine.create(spec)

    async def write(checkpoint_id: str) -> None:
        await engine.checkpoint(spec.id, checkpoint_id, SnapshotKind.MEMORY, hold=False)

    orphan, layer = "c" + "o" * 20, "c" + "l" * 20
    for checkpoint_id in (orphan, layer):
        await write(checkpoint_id)
    leased.add(layer)
    with checkpoints.new() as fresh:
        await write(fresh)
        sweep = asyncio.create_task(checkpoints.sweep())
        await store.asked.wait()
    leased.clear()  # both have a row by now, which was not there when the sweep asked
    store.go_on.set()
    await sweep
    assert set(engine.machine.checkpoints) == {fresh, layer}
