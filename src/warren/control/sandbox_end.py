"""Ending a sandbox: by request, by its deadline, or because it died. All ways lead through `Ending.end`."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from warren.contracts.audit import Audit
from warren.contracts.clock import Clock
from warren.contracts.engine import Engine
from warren.contracts.store import Store
from warren.control.live import LiveSandboxes
from warren.control.work import Work
from warren.model.audit import Event, Kind, Outcome
from warren.model.errors import WarrenError
from warren.model.observation import Level, LogEntry
from warren.model.sandbox import EndReason, State
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
        work: Work,
        meters: Meters,
        audit: Audit,
    ) -> None:
        self._engine, self._store, self._clock, self._live, self._work = engine, store, clock, live, work
        self._meters, self._audit = meters, audit
        self._under_way: dict[str, asyncio.Future[bool]] = {}

    async def end(self, sandbox_id: str, reason: EndReason) -> bool:
        """End a sandbox and return when nothing of it is left; False when it was gone already.

        Concurrent calls join the first one. Goes on to its end when the caller goes away. Raises EngineFailed when
        the runtime refuses; the state then stays `killing`, and `resume` tries again.
        """
        return await self._joined(sandbox_id, self._end, reason)

    async def resume(self, sandbox_id: str, reason: EndReason) -> bool:
        """Finish an end that broke off: the row says `killing`, and nobody here is at it."""
        return await self._joined(sandbox_id, self._finish, reason)

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
        if await self._store.move(sandbox_id, frozenset({State.CREATING, State.RUNNING}), State.KILLING) is None:
            return False
        return await self._finish(sandbox_id, reason)

    async def _finish(self, sandbox_id: str, reason: EndReason) -> bool:
        self._live.remove(sandbox_id)
        await self.discard(sandbox_id, reason)
        entry = LogEntry(self._clock.now(), Level.INFO, "warren", f"sandbox ended: {reason}", {"reason": reason})
        await self._store.add_logs(sandbox_id, [entry])
        log.info("sandbox ended", sandbox=sandbox_id, reason=reason)
        return True

    async def discard(self, sandbox_id: str, reason: EndReason) -> None:
        """Remove what the engine has of a sandbox, then say that it is gone. Idempotent."""
        for attempt in range(1, _DESTROY_ATTEMPTS + 1):
            try:
                await self._engine.destroy(sandbox_id)
                break
            except WarrenError as error:
                log.warning("cannot destroy sandbox", sandbox=sandbox_id, attempt=attempt, error=error.message)
                if attempt == _DESTROY_ATTEMPTS:
                    raise
                await asyncio.sleep(_RETRY_PAUSE_S)
        if await self._store.mark_gone(sandbox_id, reason, self._clock.now()):
            self._meters.ends.labels(reason.value).inc()
            self._audit.note(Event(Kind.SANDBOX_END, Outcome.OBSERVED, reason.value, f"sandbox:{sandbox_id}"))
