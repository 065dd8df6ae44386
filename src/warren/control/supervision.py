"""Keeping what is written true: deadlines, and after a restart everything that was there before."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import structlog

from warren.contracts.clock import Clock
from warren.contracts.engine import Engine, Placement
from warren.contracts.store import Store
from warren.control.checkpoints import Checkpoints
from warren.control.live import LiveSandboxes
from warren.control.pausing import Pausing, is_frozen
from warren.control.resuming import Resuming
from warren.control.sandbox_end import Ending, reason_of
from warren.control.watches import LONGEST_NAP_S, Watches
from warren.control.work import Work
from warren.model import limits
from warren.model.errors import WarrenError
from warren.model.pause import PauseCause
from warren.model.sandbox import Desired, EndReason, Sandbox, State

log = structlog.get_logger(__name__)

_SWEEP_PERIOD_S = 10.0
"""Seconds between two looks for sandboxes that should be gone and are not, and for rows old enough to forget."""
_MENDS_WAITED_FOR_S = 5.0
"""Seconds that a sweep waits for what it mends: one sandbox may take minutes, and the rest of the sweep does not."""


class Supervision:
    """Keeps the observed state of this server's own sandboxes true."""

    def __init__(
        self,
        *,
        server_id: str,
        engine: Engine,
        store: Store,
        clock: Clock,
        live: LiveSandboxes,
        watches: Watches,
        ending: Ending,
        pausing: Pausing,
        resuming: Resuming,
        checkpoints: Checkpoints,
        work: Work,
    ) -> None:
        self._server_id, self._engine, self._store, self._clock = server_id, engine, store, clock
        self._live, self._watches, self._ending, self._work = live, watches, ending, work
        self._pausing, self._resuming, self._checkpoints = pausing, resuming, checkpoints
        self._at_deadline: set[str] = set()
        self._mending: set[str] = set()
        self._places = asyncio.Semaphore(limits.RECOVERIES_AT_ONCE)

    async def adopt(self) -> None:
        """After a start: take over what runs, finish what was half done, destroy what nobody knows."""
        running = {placement.id: placement for placement in await self._engine.list()}
        known = await self._store.live_sandboxes(self._server_id)
        await asyncio.gather(*(self._adopt(sandbox, running.pop(sandbox.id, None)) for sandbox in known))
        for sandbox_id in running:
            log.warning("destroying a sandbox that no record names", sandbox=sandbox_id)
            try:
                await self._ending.discard(sandbox_id, EndReason.LOST)
            except WarrenError as error:
                log.error("sandbox that no record names not destroyed yet", sandbox=sandbox_id, error=error.message)
        await self._checkpoints.sweep()

    async def _adopt(self, sandbox: Sandbox, placement: Placement | None) -> None:
        async with self._places:
            try:
                if not await self._take_over(sandbox, placement):
                    await self._ending.end_for_sure(sandbox.id, self._reason_found_gone(sandbox))
            except WarrenError as error:
                log.error("sandbox not taken over yet", sandbox=sandbox.id, error=error.message)

    async def _take_over(self, sandbox: Sandbox, placement: Placement | None) -> bool:
        """False when nothing is left of it."""
        if sandbox.state is State.KILLING:
            return await self._ending.resume(sandbox.id, reason_of(sandbox))
        if sandbox.state.is_asleep:
            return await self._pausing.recover(sandbox, placement)
        if sandbox.state is not State.RUNNING or placement is None:
            return False
        with self._pausing.at_work(sandbox.id):
            # The last server may have ended between the engine's rules and the record of them: nothing wakes under
            # any others.
            await self._engine.set_egress(sandbox.id, sandbox.network.egress())
            await self._engine.thaw(sandbox.id)  # a server may have ended while it took a snapshot, a pause have failed
            now = await self._store.sandbox(sandbox.project_id, sandbox.id)
        if now is not None and self._is_unrouted(now) and not self._is_at_work(sandbox.id):
            self._watches.watch(now, placement.address)
            log.info("sandbox adopted", sandbox=sandbox.id)
        return True

    def _is_at_work(self, sandbox_id: str) -> bool:
        return self._pausing.is_at_work(sandbox_id) or self._ending.is_at_work(sandbox_id)

    def _reason_found_gone(self, sandbox: Sandbox) -> EndReason:
        if sandbox.state is State.CREATING:
            return EndReason.FAILED_TO_START
        return EndReason.MACHINE_RESTARTED if self._engine.machine_restarted else EndReason.DIED

    async def end_all(self) -> None:
        """End every sandbox here: the server stops and was told to take them with it."""
        gate = asyncio.Semaphore(limits.ENDS_AT_ONCE)

        async def end(sandbox_id: str) -> None:
            async with gate:
                try:
                    await self._ending.end(sandbox_id, EndReason.SERVER_STOPPED)
                except WarrenError as error:
                    log.error("sandbox not ended; the next server will", sandbox=sandbox_id, error=error.message)

        await asyncio.gather(*(end(placement.id) for placement in await self._engine.list()))

    async def run(self) -> None:
        """Enforce deadlines, heed wishes and sweep, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._enforce_deadlines())
            group.create_task(self._heed_wishes())
            group.create_task(self._sweep())

    async def _enforce_deadlines(self) -> None:
        while True:
            now = self._clock.now()
            try:
                if self._watches.is_due(now):
                    await self._end_overdue(now)
            except Exception:
                log.exception("cannot enforce deadlines; trying again")
                await self._clock.sleep_until(now + timedelta(seconds=LONGEST_NAP_S))
            await self._watches.until_next(self._clock.now())

    async def _end_overdue(self, now: datetime) -> None:
        """The store decides who is overdue: another server may have moved a deadline, or wish a sandbox gone."""
        for sandbox in await self._store.overdue(self._server_id, now):
            if sandbox.desired is Desired.GONE:
                self._work.spawn(self._ending.end(sandbox.id, EndReason.KILLED), f"end {sandbox.id}")
            elif sandbox.lifecycle.auto_pause:
                if sandbox.id in self._at_deadline:
                    continue  # its guest takes its time
                self._at_deadline.add(sandbox.id)
                self._work.spawn(self._pause_at_deadline(sandbox), f"pause {sandbox.id}")
            else:
                self._work.spawn(self._ending.end(sandbox.id, EndReason.EXPIRED), f"end {sandbox.id}")
        self._watches.take_due(now)

    async def _pause_at_deadline(self, sandbox: Sandbox) -> None:
        try:
            if sandbox.is_idle:
                await self._keep_asleep(sandbox)
            else:
                await self._pausing.at_deadline(sandbox)
        finally:
            self._at_deadline.discard(sandbox.id)

    async def _keep_asleep(self, idle: Sandbox) -> None:
        """One that idleness put on disk has what its owner wished. One that it froze goes there now, if it may wake."""
        if is_frozen(idle):
            try:
                awake = await self._resuming.wake_idle(idle)
            except WarrenError as error:
                log.warning("frozen sandbox cannot go to disk at its deadline", sandbox=idle.id, error=error.message)
            else:
                await self._pausing.at_deadline(awake)
                return
        await self._store.keep_asleep(idle.id, PauseCause.DEADLINE)

    async def _heed_wishes(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now() + timedelta(seconds=limits.WISH_PERIOD_S))
            try:
                await self._end_overdue(self._clock.now())
            except WarrenError as error:
                log.warning("cannot look for wishes; trying again", error=error.message)
            except Exception:
                log.exception("looking for wishes failed; it goes on")

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now() + timedelta(seconds=_SWEEP_PERIOD_S))
            try:
                await self.sweep()
            except Exception:
                log.exception("sweep failed; it runs again")

    async def sweep(self) -> None:
        """What a failure left behind, and what was given up while this server could not reach the store."""
        routed = {route.sandbox_id for route in self._live.all()}
        known = await self._store.live_sandboxes(self._server_id)
        self._ending.settle_debts(sandbox for sandbox in known if sandbox.state is State.KILLING)
        for sandbox_id in routed - {sandbox.id for sandbox in known}:
            self._work.spawn(self._ending.resume(sandbox_id, EndReason.LOST), f"sweep {sandbox_id}")
        await self._mend(known)
        await self._checkpoints.sweep()
        await self._store.prune_gone(self._clock.now() - timedelta(seconds=limits.GONE_KEPT_S))

    async def _mend(self, known: Sequence[Sandbox]) -> None:
        """What runs here unknown to the routes, pauses that broke off, frozen ones that died, paused ones too old."""
        now = self._clock.now()
        days = {project.id: project.limits.paused_days for project in await self._store.projects()}
        placements = {placement.id: placement for placement in await self._engine.list()}
        mends: list[asyncio.Task[None]] = []
        for sandbox in known:
            placement = placements.get(sandbox.id)
            if sandbox.id in self._mending:
                continue  # it takes its time
            if self._is_astray(sandbox, placement):
                self._mending.add(sandbox.id)
                mends.append(self._work.spawn(self._mend_one(sandbox, placement), f"mend {sandbox.id}"))
            elif _is_too_old(sandbox, days, now):
                self._work.spawn(self._age_out(sandbox, days), f"age out {sandbox.id}")
        if mends:
            await asyncio.wait(mends, timeout=_MENDS_WAITED_FOR_S)

    async def _mend_one(self, sandbox: Sandbox, placement: Placement | None) -> None:
        try:
            async with self._places:
                await self._recover(sandbox, placement)
        except WarrenError as error:
            log.error("sandbox not mended yet", sandbox=sandbox.id, error=error.message)
        finally:
            self._mending.discard(sandbox.id)

    async def _age_out(self, sandbox: Sandbox, days: Mapping[str, int]) -> None:
        """If it still sleeps as it did when the sweep began: it may have been resumed, and paused again, since."""
        now = await self._store.sandbox(sandbox.project_id, sandbox.id)
        if now is not None and _is_too_old(now, days, self._clock.now()):
            log.warning("ending a sandbox that was paused for too long", sandbox=sandbox.id)
            await self._ending.end(sandbox.id, EndReason.PAUSED_TOO_LONG)

    def _is_astray(self, sandbox: Sandbox, placement: Placement | None) -> bool:
        broken_off = sandbox.state in (State.PAUSING, State.RESUMING)
        if broken_off or self._is_unrouted(sandbox):
            return True
        if is_frozen(sandbox):
            return placement is None
        # Asleep on disk, but not cleared; or nobody looked at it here, and traffic would not wake it.
        return sandbox.state is State.PAUSED and (placement is not None or not self._live.is_asleep(sandbox.id))

    def _is_unrouted(self, sandbox: Sandbox) -> bool:
        return sandbox.state is State.RUNNING and self._live.find(sandbox.id) is None

    async def _recover(self, sandbox: Sandbox, placement: Placement | None) -> None:
        now = await self._store.sandbox(sandbox.project_id, sandbox.id)
        if now != sandbox or not self._is_astray(sandbox, placement) or self._is_at_work(sandbox.id):
            return  # somebody is at it, or was meanwhile
        if not await self._take_over(sandbox, placement):
            await self._ending.end_for_sure(sandbox.id, EndReason.DIED)


def _is_too_old(sandbox: Sandbox, days: Mapping[str, int], now: datetime) -> bool:
    """Whether it has slept for longer than its project may keep a paused sandbox."""
    if sandbox.state is not State.PAUSED or sandbox.pause is None or sandbox.project_id not in days:
        return False
    return now - sandbox.pause.at > timedelta(days=days[sandbox.project_id])
