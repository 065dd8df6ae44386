"""When each sandbox was last used: by traffic through the gateway, or by work of its own."""

from datetime import datetime, timedelta

from warren.contracts.clock import Clock
from warren.model import limits


class Activity:
    """A sandbox with a request open is in use; so is one whose processors work. Implements `contracts.routing.Usage`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[str, int] = {}
        self._last: dict[str, datetime] = {}

    def enter(self, sandbox_id: str) -> None:
        self._open[sandbox_id] = self._open.get(sandbox_id, 0) + 1

    def leave(self, sandbox_id: str) -> None:
        left = self._open.pop(sandbox_id, 1) - 1
        if left > 0:
            self._open[sandbox_id] = left
        self._last[sandbox_id] = self._clock.now()

    def worked(self, sandbox_id: str, cpu_pct: float) -> None:
        """A sample of its processors' use, in per cent of one."""
        if cpu_pct >= limits.IDLE_CPU_PCT:
            self._last[sandbox_id] = self._clock.now()

    def idle_for(self, sandbox_id: str) -> timedelta:
        """How long nobody has used it; zero for one that is in use, or that was not known before."""
        now = self._clock.now()
        if sandbox_id in self._open:
            return timedelta()
        return now - self._last.setdefault(sandbox_id, now)

    def forget(self, sandbox_id: str) -> None:
        self._last.pop(sandbox_id, None)
