"""Down the idle ladder, and no way up: whatever is asked of a sandbox wakes it from any step."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

import structlog

from warren.contracts.clock import Clock
from warren.contracts.engine import Engine
from warren.contracts.store import Store
from warren.control.activity import Activity
from warren.control.pausing import Pausing
from warren.control.resuming import Resuming
from warren.model import limits
from warren.model.errors import Conflict, WarrenError
from warren.model.idle import Ladder, Step, default_ladder
from warren.model.pause import PauseKind
from warren.model.sandbox import Sandbox, State

log = structlog.get_logger(__name__)


class Idleness:
    """`ladders`: of the server's settings, for templates that say nothing themselves."""

    def __init__(
        self,
        *,
        server_id: str,
        engine: Engine,
        store: Store,
        clock: Clock,
        activity: Activity,
        pausing: Pausing,
        resuming: Resuming,
        ladders: Mapping[str, Ladder],
    ) -> None:
        self._server_id, self._engine, self._store, self._clock = server_id, engine, store, clock
        self._activity, self._pausing, self._resuming = activity, pausing, resuming
        self._ladders = ladders
        self._reclaimed: set[str] = set()
        self._refused: dict[str, float] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self._clock.sleep_until(self._clock.now() + timedelta(seconds=limits.IDLE_PERIOD_S))
            try:
                await self.look()
            except Exception:
                log.exception("looking for idle sandboxes failed; it runs again")

    async def look(self) -> None:
        """Take each sandbox one step deeper that has earned it."""
        own = await self._store.ladders()
        if not own and not self._ladders:
            self._activity.forget_others(frozenset())  # nobody asks for it
            return
        known = await self._store.live_sandboxes(self._server_id)
        gate = asyncio.Semaphore(limits.IDLE_STEPS_AT_ONCE)
        await asyncio.gather(*(self._consider(sandbox, self._ladder(own, sandbox), gate) for sandbox in known))
        ids = {sandbox.id for sandbox in known}
        self._activity.forget_others(ids)
        self._reclaimed &= {sandbox.id for sandbox in known if sandbox.is_idle}
        for gone in self._refused.keys() - ids:
            del self._refused[gone]

    def _ladder(self, own: Mapping[str, Ladder], sandbox: Sandbox) -> Ladder:
        names = (sandbox.alias or "", sandbox.template_id)
        ladder = own.get(sandbox.template_id) or default_ladder(self._ladders, names)
        is_refused = asyncio.get_running_loop().time() < self._refused.get(sandbox.id, 0)
        return replace(ladder, disk_s=None) if is_refused else ladder

    async def _consider(self, sandbox: Sandbox, ladder: Ladder, gate: asyncio.Semaphore) -> None:
        if sandbox.state is not State.RUNNING and not sandbox.is_idle:
            return
        now = self._step(sandbox)
        deepest = Step.ON_DISK if self._engine.keeps_memory(sandbox.runtime) else Step.RECLAIMED

        def earned() -> Step:
            return min(ladder.step_after(self._activity.idle_for(sandbox.id)), deepest)

        if earned() <= now:
            return
        async with gate:  # behind checkpoints, which take their time
            step = earned()
            if step <= now or await self._store.sandbox(sandbox.project_id, sandbox.id) != sandbox:
                return
            try:
                await self._descend(sandbox, now, step, lambda: earned() >= step)
            except Conflict as error:
                log.debug("idle sandbox is not idle any more", sandbox=sandbox.id, error=error.message)
            except WarrenError as error:
                log.info("idle sandbox stays where it is", sandbox=sandbox.id, step=now.name, error=error.message)
                if step is Step.ON_DISK:
                    self._refused[sandbox.id] = asyncio.get_running_loop().time() + limits.IDLE_DISK_AGAIN_S

    def _step(self, sandbox: Sandbox) -> Step:
        if sandbox.pause is None:
            return Step.RUNNING
        if sandbox.pause.kind is not PauseKind.FROZEN:
            return Step.ON_DISK
        return Step.RECLAIMED if sandbox.id in self._reclaimed else Step.FROZEN

    async def _descend(self, sandbox: Sandbox, now: Step, earned: Step, still: Callable[[], bool]) -> None:
        if earned is Step.ON_DISK:
            await self._to_disk(sandbox, still)
            return
        if now is Step.RUNNING:
            await self._pausing.idle(sandbox, PauseKind.FROZEN, still)
        if earned > Step.FROZEN and sandbox.id not in self._reclaimed:
            given = await self._engine.reclaim(sandbox.id)
            self._reclaimed.add(sandbox.id)
            log.info("memory of an idle sandbox reclaimed", sandbox=sandbox.id, bytes=given)

    async def _to_disk(self, sandbox: Sandbox, still: Callable[[], bool]) -> None:
        """A frozen one runs for the moment that it takes: a checkpoint is made of what runs."""
        await self._pausing.check_room(sandbox)
        awake = await self._resuming.wake_idle(sandbox) if sandbox.is_idle else sandbox
        await self._pausing.idle(awake, PauseKind.MEMORY, still)
