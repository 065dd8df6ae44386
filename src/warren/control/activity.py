"""When each sandbox was last used: by traffic through the gateway, or by work of its own."""

from collections.abc import Set
from datetime import datetime, timedelta

from warren.contracts.clock import Clock
from warren.model import limits


class Activity:
    """A sandbox with a request open is in use, and so is one that computes. Implements `contracts.routing.Traffic`."""

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

    def forget_others(self, known: Set[str]) -> None:
        """Drop what is remembered of sandboxes that are not there any more."""
        for gone in self._last.keys() - known:
            del self._last[gone]
