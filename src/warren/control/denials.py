"""What sandboxes tried to reach and were not let: counted by the engine, told in sums."""

from collections.abc import Mapping
from datetime import timedelta

import structlog

from warren.contracts.audit import Audit
from warren.contracts.clock import Clock
from warren.contracts.engine import Engine
from warren.model import limits
from warren.model.audit import Event, Kind, Outcome
from warren.telemetry.meters import Meters

log = structlog.get_logger(__name__)


class Denials:
    def __init__(self, *, engine: Engine, clock: Clock, audit: Audit, meters: Meters) -> None:
        self._engine, self._clock, self._audit, self._meters = engine, clock, audit, meters
        self._before: Mapping[str, int] = {}

    async def run(self) -> None:
        """Look every `limits.DENIALS_PERIOD_S`, until cancelled."""
        while True:
            await self._clock.sleep_until(self._clock.now() + timedelta(seconds=limits.DENIALS_PERIOD_S))
            try:
                await self.look()
            except Exception:
                log.exception("counting of denials failed; it runs again")

    async def look(self) -> None:
        found = await self._engine.denials()
        for sandbox_id, count in fresh(self._before, found).items():
            self._meters.egress_denied.inc(count)
            details = {"packets": count}
            subject = f"sandbox:{sandbox_id}"
            self._audit.note(Event(Kind.EGRESS_DENIED, Outcome.REFUSED, "network_policy", subject, details=details))
        self._before = found


def fresh(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """What came since; a count that is smaller than before has begun anew."""
    grown = {name: count - before.get(name, 0) for name, count in now.items()}
    return {name: (now[name] if by < 0 else by) for name, by in grown.items() if by and now[name]}
