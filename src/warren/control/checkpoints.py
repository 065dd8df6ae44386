"""Checkpoints on this server's disk: room for them, who works with one, and the end of those that nobody needs."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Set
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import structlog

from warren.contracts.clock import Ids
from warren.contracts.engine import Checkpoint, Engine
from warren.contracts.store import Store
from warren.model import limits
from warren.model.errors import Busy, LimitReached, WarrenError
from warren.model.project import Project
from warren.model.snapshot import SnapshotKind
from warren.turns import Turns

log = structlog.get_logger(__name__)

_MIB = 1024 * 1024


class Checkpoints:
    def __init__(self, *, engine: Engine, store: Store, ids: Ids, layers: Callable[[], Set[str]] = frozenset) -> None:
        """`layers`: those that the build cache and builds at work stand on."""
        self._engine, self._store, self._ids, self._layers = engine, store, ids, layers
        self._in_work: set[str] = set()
        self._writers = asyncio.Semaphore(limits.CHECKPOINTS_AT_ONCE)
        self._turns = Turns()

    @contextmanager
    def new(self) -> Generator[str]:
        """An id for a checkpoint that `sweep` leaves alone until the block is left; then the store must refer to it."""
        checkpoint_id = self._ids.checkpoint_id()
        self._in_work.add(checkpoint_id)
        try:
            yield checkpoint_id
        finally:
            self._in_work.discard(checkpoint_id)

    @asynccontextmanager
    async def turn(self, sandbox_id: str, within_s: float | None = None) -> AsyncGenerator[None]:
        """A place among those that write, one for each sandbox: to be had before anything is claimed or stands still.

        Raises Busy when none is free within `limits.CHECKPOINT_TURN_S`.
        """
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(limits.CHECKPOINT_TURN_S if within_s is None else within_s):
                    # First, so that whoever waits for its own sandbox takes no place from others.
                    await held.enter_async_context(self._turns.of(sandbox_id))
                    await held.enter_async_context(self._writers)
            except TimeoutError:
                raise Busy(
                    f"cannot keep sandbox {sandbox_id} now: too many others are being written to disk; try again later"
                ) from None
            yield

    async def check_room(self, project: Project) -> None:
        """Raises LimitReached when the project's paused sandboxes and snapshots take all that it may keep on disk."""
        usage, limit = await self._store.snapshot_usage(project.id), project.limits.snapshot_mb
        if usage.bytes >= limit * _MIB:
            raise LimitReached(
                f"cannot keep another checkpoint: paused sandboxes and snapshots take {usage.bytes // _MIB} MiB of the "
                f"project's limit of {limit} (snapshot_mb); delete snapshots, or kill paused sandboxes"
            )

    async def forget(self, checkpoint_id: str) -> None:
        """Delete it now, or at the next sweep if the engine cannot."""
        try:
            await self._engine.forget(checkpoint_id)
        except WarrenError as error:
            log.warning("cannot delete checkpoint; the sweep tries again", id=checkpoint_id, error=error.message)

    async def find(self, checkpoint_id: str) -> Checkpoint | None:
        """Also one that cannot be read."""
        whole = await self._engine.checkpoints()
        return next((checkpoint for checkpoint in whole if checkpoint.id == checkpoint_id), None)

    async def holds_memory(self, checkpoint_id: str) -> bool:
        """Whether there is memory in it that this version can read."""
        found = await self.find(checkpoint_id)
        return found is not None and not found.unreadable and found.kind is SnapshotKind.MEMORY

    async def sweep(self) -> None:
        """Delete what no live sandbox, snapshot or cached layer stands on, and nobody here is at work with."""
        on_disk = {checkpoint.id for checkpoint in await self._engine.checkpoints()}
        if not on_disk:
            return
        # Looked at before the rows too: whoever lets go meanwhile has a row that this look may have come too early for.
        held = self._in_work | self._layers()
        needed = await self._store.referenced_checkpoints() | held | self._layers()
        for checkpoint_id in sorted(on_disk - needed):
            log.info("deleting a checkpoint that nothing stands on", id=checkpoint_id)
            await self.forget(checkpoint_id)
