"""One checkpoint of a running sandbox, which goes on: what snapshots and forks begin with."""

import asyncio

from warren.contracts.engine import Checkpoint, Engine
from warren.contracts.store import Store
from warren.control.checkpoints import Checkpoints
from warren.control.standstills import Standstills
from warren.model import limits
from warren.model.errors import Busy, SandboxChanging, SandboxNotFound, SandboxPaused
from warren.model.sandbox import Sandbox, State
from warren.model.snapshot import SnapshotKind


class Copying:
    def __init__(self, *, engine: Engine, store: Store, checkpoints: Checkpoints, standstills: Standstills) -> None:
        self._engine, self._store, self._checkpoints, self._standstills = engine, store, checkpoints, standstills

    async def copy(
        self, sandbox: Sandbox, checkpoint_id: str, kind: SnapshotKind, *, durable: bool = True
    ) -> Checkpoint:
        """Raises SandboxPaused, SandboxChanging, SandboxNotFound, Busy, NoSpace, EngineFailed; it runs on then too."""
        async with self._checkpoints.turn(sandbox.id):
            now = await self._store.sandbox(sandbox.project_id, sandbox.id)
            if now is None or now.state is State.GONE:
                raise SandboxNotFound.of(sandbox.id)
            check_runs(now)  # it may have been paused while this waited
            try:
                async with asyncio.timeout(limits.CHECKPOINT_DEADLINE_S), self._standstills.begin(sandbox.id):
                    return await self._engine.checkpoint(sandbox.id, checkpoint_id, kind, hold=False, durable=durable)
            except TimeoutError:
                raise Busy(f"cannot copy sandbox {sandbox.id} in time; it runs on, try again later") from None


def check_runs(sandbox: Sandbox) -> None:
    if sandbox.state.is_asleep:
        raise SandboxPaused(f"cannot copy sandbox {sandbox.id}: it is paused; resume it first")
    if sandbox.state is not State.RUNNING:
        raise SandboxChanging(f"cannot copy sandbox {sandbox.id}: it is being started or ended")
