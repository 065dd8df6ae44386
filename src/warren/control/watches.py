"""What runs here and is watched: its deadline, and its death."""

import asyncio
import contextlib
from datetime import datetime, timedelta

import structlog

from warren.contracts.engine import Engine
from warren.control.live import LiveSandboxes
from warren.control.memory import MemoryRelief
from warren.control.sandbox_end import Ending
from warren.control.work import Work
from warren.model import limits
from warren.model.sandbox import EndReason, Sandbox

log = structlog.get_logger(__name__)

LONGEST_NAP_S = limits.DEADLINE_SLACK_S / 2


class Watches:
    """One watch for each life of a sandbox: from `watch` until its route is taken away, by whomever."""

    def __init__(
        self, *, engine: Engine, live: LiveSandboxes, ending: Ending, relief: MemoryRelief, work: Work
    ) -> None:
        self._engine, self._live, self._ending, self._relief, self._work = engine, live, ending, relief, work
        self._deadlines: dict[str, datetime] = {}
        self._lives: dict[str, tuple[asyncio.Task[None], ...]] = {}
        self._changed = asyncio.Event()
        live.on_gone(self._forget)

    def watch(self, sandbox: Sandbox, address: str) -> None:
        """From now on the sandbox takes traffic, dies visibly and meets its deadline. Takes the place of a watch."""
        self._forget(sandbox.id)
        self._live.add(sandbox, address)
        self.set_deadline(sandbox.id, sandbox.expires_at)
        self._lives[sandbox.id] = (
            self._work.spawn(self._await_death(sandbox.id), f"watch {sandbox.id}"),
            self._work.spawn(self._relief.watch(sandbox), f"memory of {sandbox.id}"),
        )

    def set_deadline(self, sandbox_id: str, when: datetime) -> None:
        self._deadlines[sandbox_id] = when
        self._changed.set()

    def is_due(self, now: datetime) -> bool:
        """Whether a deadline has come that was not taken off yet."""
        return min(self._deadlines.values(), default=now + timedelta(days=1)) <= now

    def take_due(self, now: datetime) -> None:
        for sandbox_id in [key for key, when in self._deadlines.items() if when <= now]:
            del self._deadlines[sandbox_id]

    async def until_next(self, now: datetime) -> None:
        """Naps are short, so that a jump of the wall clock is noticed in time."""
        soonest = min(self._deadlines.values(), default=now + timedelta(seconds=LONGEST_NAP_S))
        nap = min(max((soonest - now).total_seconds(), 0.0), LONGEST_NAP_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(nap):
                await self._changed.wait()
        self._changed.clear()

    def _forget(self, sandbox_id: str) -> None:
        """Its route was taken away: it sleeps now, or somebody is ending it; the one who saw it die is at that."""
        self._deadlines.pop(sandbox_id, None)
        for watcher in self._lives.pop(sandbox_id, ()):
            if watcher is not asyncio.current_task():
                watcher.cancel()

    async def _await_death(self, sandbox_id: str) -> None:
        await self._engine.death(sandbox_id)
        self._live.remove(sandbox_id)
        await self._ending.end_for_sure(sandbox_id, EndReason.DIED)
