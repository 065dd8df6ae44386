"""Asking each guest whether it still answers: one that stopped is marked, cut off, and heard again when it is back.

A slow machine must never condemn a healthy sandbox, so it takes several calls over a while, and a call during which
this server itself was late, or the sandbox stood still to be copied, says nothing. A mark ends nothing: that is for the
sandbox's deadline and for `kill`.
"""

import asyncio

import structlog

from warren.contracts.clock import Clock
from warren.contracts.guest import Guest
from warren.contracts.routing import Route
from warren.contracts.store import Store
from warren.control.live import LiveSandboxes
from warren.control.standstills import Standstills
from warren.model import limits
from warren.model.errors import WarrenError
from warren.model.health import Silence
from warren.model.observation import Level, LogEntry
from warren.telemetry.meters import Meters

log = structlog.get_logger(__name__)


class GuestHealth:
    def __init__(
        self,
        *,
        guest: Guest,
        store: Store,
        clock: Clock,
        live: LiveSandboxes,
        standstills: Standstills,
        meters: Meters,
    ) -> None:
        self._guest, self._store, self._clock, self._meters = guest, store, clock, meters
        self._live, self._standstills = live, standstills
        self._silences: dict[str, Silence] = {}
        self._was_late_at = 0.0

    async def run(self) -> None:
        """Ask every guest every `limits.HEALTH_PERIOD_S`, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._notice_own_lateness())
            group.create_task(self._ask_again_and_again())

    async def _notice_own_lateness(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            due = now() + limits.HEALTH_PULSE_S
            await asyncio.sleep(limits.HEALTH_PULSE_S)
            if now() - due > limits.HEALTH_LATENESS_S:
                self._was_late_at = now()

    async def _ask_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(limits.HEALTH_PERIOD_S)
            try:
                await self._ask_all()
            except Exception:
                log.exception("asking the guests failed; it runs again")

    async def _ask_all(self) -> None:
        gate = asyncio.Semaphore(limits.HEALTH_CALLS_AT_ONCE)
        await asyncio.gather(*(self._ask(route, gate) for route in self._live.all()))
        routes = {route.sandbox_id: route for route in self._live.all()}
        self._silences = {key: silence for key, silence in self._silences.items() if key in routes}
        self._meters.unresponsive.set(sum(not route.answers for route in routes.values()))

    async def _ask(self, route: Route, gate: asyncio.Semaphore) -> None:
        now = asyncio.get_running_loop().time
        async with gate:
            if route.sandbox_id in self._standstills:
                self._silences.pop(route.sandbox_id, None)  # it cannot answer, which says nothing of before or after
                return
            since = now()
            try:
                await self._guest.check(route.address)
            except WarrenError as error:
                log.debug("guest missed a call", sandbox=route.sandbox_id, error=error.message)
                if self._was_late_at < since and route.sandbox_id not in self._standstills:
                    await self._missed(route, since, now())
                return
        self._silences.pop(route.sandbox_id, None)
        await self._mark(route, answers=True, level=Level.INFO, message="the guest answers again")

    async def _missed(self, route: Route, since: float, now: float) -> None:
        before = self._silences.get(route.sandbox_id)
        silence = self._silences[route.sandbox_id] = Silence(since) if before is None else before.longer()
        if silence.is_proof(now):
            await self._mark(route, answers=False, level=Level.WARN, message="the guest does not answer")

    async def _mark(self, route: Route, *, answers: bool, level: Level, message: str) -> None:
        if route.answers is answers or not self._live.mark(route, answers=answers):
            return
        log.warning(message, sandbox=route.sandbox_id)
        await self._store.add_logs(route.sandbox_id, [LogEntry(self._clock.now(), level, "warren", message)])
