"""Watching what runs: deaths, deadlines, and after a restart everything that was running before."""

import asyncio
import contextlib
from datetime import datetime, timedelta

import structlog

from warren.contracts.clock import Clock
from warren.contracts.engine import Engine, Placement
from warren.contracts.store import Store
from warren.control.live import LiveSandboxes
from warren.control.sandbox_end import Ending
from warren.control.work import Work
from warren.model import limits
from warren.model.errors import WarrenError
from warren.model.sandbox import Desired, EndReason, Sandbox, State

log = structlog.get_logger(__name__)

_LONGEST_NAP_S = limits.DEADLINE_SLACK_S / 2

_SWEEP_PERIOD_S = 10.0
"""Seconds between two looks for sandboxes that should be gone and are not, and for rows old enough to forget."""


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
        ending: Ending,
        work: Work,
    ) -> None:
        self._server_id, self._engine, self._store, self._clock = server_id, engine, store, clock
        self._live, self._ending, self._work = live, ending, work
        self._deadlines: dict[str, datetime] = {}
        self._changed = asyncio.Event()

    def watch(self, sandbox: Sandbox, address: str) -> None:
        """From now on the sandbox takes traffic, dies visibly and ends at its deadline."""
        self._live.add(sandbox, address)
        self.set_deadline(sandbox.id, sandbox.expires_at)
        self._work.spawn(self._await_death(sandbox.id), f"watch {sandbox.id}")

    def set_deadline(self, sandbox_id: str, when: datetime) -> None:
        self._deadlines[sandbox_id] = when
        self._changed.set()

    async def adopt(self) -> None:
        """After a start: take over what runs, finish what was half done, destroy what nobody knows."""
        running = {placement.id: placement for placement in await self._engine.list()}
        for sandbox in await self._store.live_sandboxes(self._server_id):
            placement = running.pop(sandbox.id, None)
            try:
                await self._take_over(sandbox, placement)
            except WarrenError as error:
                log.error("sandbox not taken over yet", sandbox=sandbox.id, error=error.message)
        for sandbox_id in running:
            log.warning("destroying a sandbox that no record names", sandbox=sandbox_id)
            await self._engine.destroy(sandbox_id)

    async def _take_over(self, sandbox: Sandbox, placement: Placement | None) -> None:
        if sandbox.state is State.RUNNING and placement is not None:
            self.watch(sandbox, placement.address)
            log.info("sandbox adopted", sandbox=sandbox.id)
            # The last server may have ended between the engine's rules and the record of them.
            await self._engine.set_egress(sandbox.id, sandbox.network.egress())
        elif sandbox.state is State.KILLING:
            await self._ending.resume(sandbox.id, EndReason.KILLED)
        else:
            await self._end_for_sure(sandbox.id, self._reason_found_gone(sandbox))

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

    async def _await_death(self, sandbox_id: str) -> None:
        await self._engine.death(sandbox_id)
        self._live.remove(sandbox_id)
        self._deadlines.pop(sandbox_id, None)
        await self._end_for_sure(sandbox_id, EndReason.DIED)

    async def _end_for_sure(self, sandbox_id: str, reason: EndReason) -> None:
        """Of what has no processes any more: nobody else will ask for its end again."""
        try:
            await self._ending.end(sandbox_id, reason)
        except WarrenError:
            self._ending.owe(sandbox_id, reason)
            raise

    async def _enforce_deadlines(self) -> None:
        while True:
            self._changed.clear()
            now = self._clock.now()
            try:
                if min(self._deadlines.values(), default=now + timedelta(days=1)) <= now:
                    await self._end_overdue(now)
            except Exception:
                log.exception("cannot enforce deadlines; trying again")
                await self._clock.sleep_until(now + timedelta(seconds=_LONGEST_NAP_S))
            await self._until_next_deadline(self._clock.now())

    async def _end_overdue(self, now: datetime) -> None:
        """The store decides who is overdue: another server may have moved a deadline, or wish a sandbox gone."""
        for sandbox in await self._store.overdue(self._server_id, now):
            reason = EndReason.KILLED if sandbox.desired is Desired.GONE else EndReason.EXPIRED
            self._work.spawn(self._ending.end(sandbox.id, reason), f"end {sandbox.id}")
        for sandbox_id in [key for key, when in self._deadlines.items() if when <= now]:
            del self._deadlines[sandbox_id]

    async def _until_next_deadline(self, now: datetime) -> None:
        """Naps are short, so that a jump of the wall clock is noticed in time."""
        soonest = min(self._deadlines.values(), default=now + timedelta(seconds=_LONGEST_NAP_S))
        nap = min(max((soonest - now).total_seconds(), 0.0), _LONGEST_NAP_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(nap):
                await self._changed.wait()

    async def _heed_wishes(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now() + timedelta(seconds=limits.WISH_PERIOD_S))
            try:
                await self._end_overdue(self._clock.now())
            except WarrenError as error:
                log.warning("cannot look for wishes; trying again", error=error.message)

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now() + timedelta(seconds=_SWEEP_PERIOD_S))
            try:
                await self.sweep()
            except Exception:
                log.exception("sweep failed; it runs again")

    async def sweep(self) -> None:
        """What a failure left behind, and what was given up while this server could not reach the store."""
        here = {route.sandbox_id for route in self._live.all()}
        known = await self._store.live_sandboxes(self._server_id)
        self._ending.settle_debts(sandbox.id for sandbox in known if sandbox.state is State.KILLING)
        for sandbox_id in here - {sandbox.id for sandbox in known}:
            self._work.spawn(self._ending.resume(sandbox_id, EndReason.LOST), f"sweep {sandbox_id}")
        await self._store.prune_gone(self._clock.now() - timedelta(seconds=limits.GONE_KEPT_S))
