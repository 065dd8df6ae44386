"""When each sandbox was last used: by traffic through the gateway, by its owner's calls, or by work of its own."""

import time
from collections.abc import Callable, Generator, Set
from contextlib import contextmanager
from datetime import timedelta

from warren.model import limits


class Activity:
    """A sandbox with a request open is in use, and so is one that computes. Implements `contracts.routing.Traffic`."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        """`seconds` never jumps: a wall clock that is set forward would put everybody to sleep."""
        self._seconds = seconds
        self._open: dict[str, int] = {}
        self._last: dict[str, float] = {}

    @contextmanager
    def using(self, sandbox_id: str) -> Generator[None]:
        """While somebody asks something of it."""
        self.enter(sandbox_id)
        try:
            yield
        finally:
            self.leave(sandbox_id)

    def enter(self, sandbox_id: str) -> None:
        self._open[sandbox_id] = self._open.get(sandbox_id, 0) + 1

    def leave(self, sandbox_id: str) -> None:
        left = self._open.pop(sandbox_id, 1) - 1
        if left > 0:
            self._open[sandbox_id] = left
        self._last[sandbox_id] = self._seconds()

    def worked(self, sandbox_id: str, cpu_pct: float) -> None:
        """A sample of its processors' use, in per cent of one."""
        if cpu_pct >= limits.IDLE_CPU_PCT:
            self._last[sandbox_id] = self._seconds()

    def idle_for(self, sandbox_id: str) -> timedelta:
        """How long nobody has used it; zero for one that is in use, or that was not known before."""
        if sandbox_id in self._open:
            return timedelta()
        now = self._seconds()
        return timedelta(seconds=now - self._last.setdefault(sandbox_id, now))

    def forget_others(self, known: Set[str]) -> None:
        """Drop what is remembered of sandboxes that are not there any more."""
        for gone in self._last.keys() - known:
            del self._last[gone]
