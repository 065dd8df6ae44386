"""Sandboxes that run out of memory: the largest process inside is ended, and the sandbox goes on."""

import asyncio

import structlog

from warren.contracts.clock import Clock
from warren.contracts.engine import Engine, Shortage
from warren.contracts.guest import Guest
from warren.contracts.routing import Route
from warren.contracts.store import Store
from warren.control.live import LiveSandboxes
from warren.control.sandbox_end import Ending
from warren.control.standstills import Standstills
from warren.model import limits
from warren.model.errors import WarrenError
from warren.model.observation import Level, LogEntry
from warren.model.sandbox import EndReason, Sandbox
from warren.telemetry.meters import Meters

log = structlog.get_logger(__name__)


class MemoryRelief:
    def __init__(
        self,
        *,
        engine: Engine,
        guest: Guest,
        store: Store,
        clock: Clock,
        live: LiveSandboxes,
        ending: Ending,
        standstills: Standstills,
        meters: Meters,
    ) -> None:
        self._engine, self._guest, self._store, self._clock = engine, guest, store, clock
        self._live, self._ending, self._standstills, self._meters = live, ending, standstills, meters

    async def watch(self, sandbox: Sandbox) -> None:
        """Stand by until the sandbox is gone."""
        while (kind := await self._engine.shortage(sandbox.id)) is not Shortage.GONE:
            route = self._live.find(sandbox.id)
            if route is None:
                return  # it is being ended
            try:
                if kind is Shortage.KERNEL or await self._relieve(route):
                    await self._note(sandbox)
            except TimeoutError:
                log.error("sandbox does not give memory back; it is ended", sandbox=sandbox.id)
                await self._ending.end(sandbox.id, EndReason.OUT_OF_MEMORY)
                return
            except WarrenError as error:
                log.warning("memory of a sandbox not looked after", sandbox=sandbox.id, error=error.message)

    async def _relieve(self, route: Route) -> bool:
        async with self._standstills.prevented(route.sandbox_id):
            return await self.relieve(route.sandbox_id, route.address, route.control_token)

    async def relieve(self, sandbox_id: str, address: str, control_token: str) -> bool:
        """Have processes ended until the limit holds again; whether there were any. TimeoutError when it never does."""
        attempt, ended = 0, False
        async with asyncio.timeout(limits.MEMORY_RELIEF_DEADLINE_S):
            need = await self._engine.memory_excess(sandbox_id)
            while need > 0:
                try:
                    ended |= await self._guest.free(address, control_token, need, attempt)
                    attempt += 1
                except WarrenError as error:
                    log.warning("guest frees no memory", sandbox=sandbox_id, error=error.message)
                need = await self._settled(sandbox_id)
        return ended

    async def _settled(self, sandbox_id: str) -> int:
        """What is still to be freed, once that is nothing or a while has passed: memory takes a moment to come back."""
        for _ in range(limits.MEMORY_SETTLE_LOOKS):
            if await self._engine.memory_excess(sandbox_id) == 0:
                return 0
            await asyncio.sleep(limits.MEMORY_SETTLE_PAUSE_S)
        return await self._engine.memory_excess(sandbox_id)

    async def _note(self, sandbox: Sandbox) -> None:
        self._meters.out_of_memory.labels(sandbox.runtime).inc()
        message = f"out of memory: processes were ended to stay within {sandbox.resources.memory_mb} MiB (memory)"
        log.info("sandbox out of memory", sandbox=sandbox.id)
        await self._store.add_logs(sandbox.id, [LogEntry(self._clock.now(), Level.WARN, "warren", message)])
