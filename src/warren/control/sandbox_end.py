"""Ending a sandbox: by request, by its deadline, or because it died. All ways lead through `Ending.end`."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import structlog

from warren.contracts.audit import Audit
from warren.contracts.clock import Clock
from warren.contracts.engine import Engine
from warren.contracts.store import Store
from warren.control.checkpoints import Checkpoints
from warren.control.live import LiveSandboxes
from warren.control.work import Work
from warren.model.audit import Event, Kind, Outcome
from warren.model.errors import NoSpace, WarrenError
from warren.model.observation import Level, LogEntry
from warren.model.sandbox import EndReason, Sandbox
from warren.telemetry.meters import Meters

log = structlog.get_logger(__name__)

_DESTROY_ATTEMPTS = 3
_RETRY_PAUSE_S = 0.5


class Ending:
    def __init__(
        self,
        *,
        engine: Engine,
        store: Store,
        clock: Clock,
        live: LiveSandboxes,
        checkpoints: Checkpoints,
        work: Work,
        meters: Meters,
        audit: Audit,
    ) -> None:
        self._engine, self._store, self._clock, self._live, self._work = engine, store, clock, live, work
        self._checkpoints, self._meters, self._audit = checkpoints, meters, audit
        self._under_way: dict[str, asyncio.Future[bool]] = {}
        self._owed: dict[str, EndReason] = {}

    async def end(self, sandbox_id: str, reason: EndReason) -> bool:
        """End a sandbox and return when nothing of it is left; False when it was gone already, or is not due any more.

        Concurrent calls join the first one. Goes on to its end when the caller goes away. Raises EngineFailed when
        the runtime refuses; the state then stays `killing`, and `settle_debts` tries again.
        """
        while True:
            is_joining = sandbox_id in self._under_way
            if await self._joined(sandbox_id, self._end, reason):
                return True
            if not is_joining:  # one that was joined may have been an end by a deadline that was extended
                return False

    async def end_for_sure(self, sandbox_id: str, reason: EndReason) -> None:
        """Of what has no processes any more: nobody else will ask for its end again."""
        try:
            await self.end(sandbox_id, reason)
        except WarrenError:
            self.owe(sandbox_id, reason)
            raise

    async def resume(self, sandbox_id: str, reason: EndReason) -> bool:
        """Finish an end that broke off: nobody here is at it. `reason_of` tells that of a row."""
        return await self._joined(sandbox_id, self._finish, reason)

    def is_at_work(self, sandbox_id: str) -> bool:
        """Whether an end is under way, or has to come to pass."""
        return sandbox_id in self._under_way or sandbox_id in self._owed

    def owe(self, sandbox_id: str, reason: EndReason) -> None:
        """This end has to come to pass, and cannot at the moment."""
        self._owed.setdefault(sandbox_id, reason)

    def settle_debts(self, killing: Iterable[Sandbox]) -> None:
        """Try what is owed once more, and the ends of sandboxes whose row says `killing`."""
        for sandbox_id, reason in ({row.id: reason_of(row) for row in killing} | self._owed).items():
            self._work.spawn(self.resume(sandbox_id, reason), f"end {sandbox_id} again")

    async def _joined(
        self, sandbox_id: str, step: Callable[[str, EndReason], Coroutine[Any, Any, bool]], reason: EndReason
    ) -> bool:
        under_way = self._under_way.get(sandbox_id)
        if under_way is None:
            under_way = self._work.begin(step(sandbox_id, reason), f"end {sandbox_id}")
            self._under_way[sandbox_id] = under_way
            under_way.add_done_callback(lambda _: self._under_way.pop(sandbox_id, None))
        return await asyncio.shield(under_way)

    async def _end(self, sandbox_id: str, reason: EndReason) -> bool:
        ending: Sandbox | None = None
        try:
            if reason is EndReason.PAUSED_TOO_LONG:
                ending = await self._store.mark_killing(sandbox_id, reason, if_paused=True)
            else:
                due_by = self._clock.now() if reason is EndReason.EXPIRED else None
                ending = await self._store.mark_killing(sandbox_id, reason, due_by)
            if ending is None:
                return False
        except NoSpace:
            # Its own layer may be what fills the disk: with that given back, the end can be written down.
            log.warning("ending a sandbox before it is noted: the disk is full", sandbox=sandbox_id)
        await self._finish(sandbox_id, reason)
        if ending is not None and ending.pause is not None and ending.pause.checkpoint_id is not None:
            await self._checkpoints.forget(ending.pause.checkpoint_id)
        return True

    async def _finish(self, sandbox_id: str, reason: EndReason) -> bool:
        self._live.remove(sandbox_id)
        await self.discard(sandbox_id, reason)
        entry = LogEntry(self._clock.now(), Level.INFO, "warren", f"sandbox ended: {reason}", {"reason": reason})
        try:
            await self._store.add_logs(sandbox_id, [entry])
        except WarrenError as error:  # it has ended all the same
            log.warning("cannot log the end of a sandbox", sandbox=sandbox_id, error=error.message)
        log.info("sandbox ended", sandbox=sandbox_id, reason=reason)
        return True

    async def discard(self, sandbox_id: str, reason: EndReason) -> None:
        """Remove what the engine has of a sandbox, then say that it is gone. Idempotent; owed when it fails."""
        try:
            await self._destroy(sandbox_id)
            if await self._store.mark_gone(sandbox_id, reason, self._clock.now()):
                self._meters.ends.labels(reason.value).inc()
                self._audit.note(Event(Kind.SANDBOX_END, Outcome.OBSERVED, reason.value, f"sandbox:{sandbox_id}"))
        except WarrenError:
            self.owe(sandbox_id, reason)
            raise
        self._owed.pop(sandbox_id, None)

    async def _destroy(self, sandbox_id: str) -> None:
        for attempt in range(1, _DESTROY_ATTEMPTS + 1):
            try:
                await self._engine.destroy(sandbox_id)
                break
            except WarrenError as error:
                log.warning("cannot destroy sandbox", sandbox=sandbox_id, attempt=attempt, error=error.message)
                if attempt == _DESTROY_ATTEMPTS:
                    raise
                await asyncio.sleep(_RETRY_PAUSE_S)


def reason_of(killing: Sandbox) -> EndReason:
    """Why its end began; rows of earlier versions do not say."""
    return killing.end_reason or EndReason.KILLED
