"""The log of a build that is at work: taken line by line, written to the store in batches."""

import asyncio

import structlog

from warren.contracts.clock import Clock
from warren.contracts.store import Store
from warren.model import limits
from warren.model.build import Build, BuildLine, LogLevel
from warren.model.errors import WarrenError

log = structlog.get_logger(__name__)


class BuildLog:
    """`say` may be called from anything that runs on the event loop."""

    def __init__(self, *, store: Store, clock: Clock, build: Build) -> None:
        self._store, self._clock, self._build = store, clock, build
        self._waiting: list[BuildLine] = []
        self._taken = self._written = 0
        self._writing = asyncio.Lock()

    def say(self, level: LogLevel, message: str, step: str | None = None) -> None:
        """One line; those beyond `limits.BUILD_LOG_LINES` are dropped, and the last says so."""
        if self._taken > limits.BUILD_LOG_LINES:
            return
        if self._taken == limits.BUILD_LOG_LINES:
            level, message = LogLevel.WARN, "The log is full; what comes now is not kept"
        self._taken += 1
        self._waiting.append(BuildLine(self._clock.now(), level, message[: limits.BUILD_LINE_MAX], step))

    async def write(self) -> bool:
        """Bring what was said to the store. False when the build is not at work any more."""
        async with self._writing:
            lines = self._waiting[:]
            try:
                at_work = await self._store.add_build_lines(
                    self._build.template_id, self._build.id, self._written, lines
                )
            except WarrenError as error:
                log.warning("lines of a build's log not written; trying again", error=error.message)
                return True
            del self._waiting[: len(lines)]
            self._written += len(lines)
            return at_work

    async def run(self) -> None:
        """Write now and then. Returns when the build is not at work any more; until then, until cancelled."""
        while await self.write():  # noqa: ASYNC110 - lines come in bursts, and batches are what is wanted
            await asyncio.sleep(limits.BUILD_LOG_PERIOD_S)
