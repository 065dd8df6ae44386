"""The audit log of a running server: a queue in front, one thread at the disk behind it."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog

from warren.audit.chain import Chain
from warren.audit.summary import Summary
from warren.contracts.clock import Clock
from warren.model import limits
from warren.model.audit import Event, Kind, Outcome
from warren.model.errors import AuditUnavailable
from warren.telemetry import request_id

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    at: datetime
    event: Event
    written: asyncio.Future[None] | None


class AuditLog:
    """Implements `contracts.audit.Audit`. `run` writes until it is cancelled; `close` writes what is left."""

    def __init__(self, chain: Chain, clock: Clock, *, must_write: bool) -> None:
        self._chain, self._clock, self._must_write = chain, clock, must_write
        self._queue: deque[_Entry] = deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "audit")
        self._summary = Summary()
        self._failure: OSError | None = None
        self._lost = 0

    def check(self) -> None:
        if self._must_write and (self._failure is not None or len(self._queue) >= limits.AUDIT_QUEUE):
            reason = self._failure.strerror if self._failure is not None else "the disk is too slow"
            raise AuditUnavailable(
                f"cannot change anything now: the audit log cannot be written ({reason}); make room or mend the disk"
            )

    async def record(self, event: Event) -> None:
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._put(event, written):
            return
        try:
            async with asyncio.timeout(limits.AUDIT_RECORD_DEADLINE_S):
                await written
        except TimeoutError:
            log.error("the audit log is late", kind=event.kind.value, subject=event.subject)

    def note(self, event: Event) -> None:
        self._put(event, None)

    def sample(self, event: Event, *, each: bool = False) -> None:
        if self._summary.admits(event, asyncio.get_running_loop().time(), each=each):
            self._put(event, None)

    async def run(self) -> None:
        """Write as it comes, sync at most every `limits.AUDIT_SYNC_S`; while the disk refuses, try again and again."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.AUDIT_SUMMARY_S if self._failure is None else limits.AUDIT_RETRY_S):
                    await self._wake.wait()
            self._tell_counts()
            await self._write_for_a_while()
            await self._attempt(self._chain.sync)

    async def _write_for_a_while(self) -> None:
        """Until the next sync is due; what comes meanwhile is written at once, for somebody waits for it."""
        now = asyncio.get_running_loop().time
        due = now() + limits.AUDIT_SYNC_S
        while True:
            self._wake.clear()
            while self._queue:
                await self._attempt(self._write)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - now())):
                    await self._wake.wait()
            if now() >= due:
                return

    async def close(self) -> None:
        """Write what is left, unless the disk refuses."""
        self._tell_counts(final=True)

        def finish() -> None:
            try:
                while self._queue:
                    self._write()
                self._chain.sync()
            except OSError as error:
                log.error("the end of the audit log is lost", events=len(self._queue), error=str(error))
            finally:
                self._chain.close()

        await asyncio.get_running_loop().run_in_executor(self._thread, finish)
        self._thread.shutdown()

    def _put(self, event: Event, written: asyncio.Future[None] | None) -> bool:
        if len(self._queue) >= limits.AUDIT_QUEUE:
            self._lost += 1
            return False
        event = event if event.request else replace(event, request=request_id.current())
        self._queue.append(_Entry(self._clock.now(), event, written))
        self._wake.set()
        return True

    def _tell_counts(self, *, final: bool = False) -> None:
        for event in self._summary.due(asyncio.get_running_loop().time(), final=final):
            self._put(event, None)
        if self._lost and len(self._queue) < limits.AUDIT_QUEUE:
            lost, self._lost = self._lost, 0
            self._put(Event(Kind.AUDIT_LOST, Outcome.OBSERVED, rule="queue_full", details={"count": lost}), None)

    async def _attempt(self, step: Callable[[], Any]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, step)
        except OSError as error:
            if self._failure is None:
                log.error("cannot write the audit log; trying again", error=str(error), refusing=self._must_write)
            self._failure = error
            await asyncio.sleep(limits.AUDIT_RETRY_S)
            return
        if self._failure is not None:
            log.info("the audit log is written again")
        self._failure = None

    def _write(self) -> None:
        """In the thread. Entries leave the queue when they are written, and not before."""
        batch = [self._queue[index] for index in range(min(len(self._queue), limits.AUDIT_BATCH))]
        self._chain.append([(entry.at, entry.event) for entry in batch])
        for entry in batch:
            self._queue.popleft()
            if entry.written is not None:
                entry.written.get_loop().call_soon_threadsafe(_settle, entry.written)


def _settle(written: asyncio.Future[None]) -> None:
    if not written.done():
        written.set_result(None)
