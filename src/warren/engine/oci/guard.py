"""Keeps the network rules in force: a restart of the machine's own firewall flushes everybody's tables.

Without rules a sandbox would reach the host's services, so the tables are looked for every few seconds and put back.
"""

import asyncio
from collections.abc import Callable

import structlog

from warren.engine.oci import firewall
from warren.engine.oci.threads import on_thread
from warren.model.errors import EngineFailed

PERIOD_S = 2.0
"""Seconds between two looks; one costs 5 ms of a processor."""

log = structlog.get_logger(__name__)


class RuleGuard:
    """`rules` gives the whole ruleset as it has to be now."""

    def __init__(self, bridge: str, rules: Callable[[], str]) -> None:
        self._bridge = bridge
        self._rules = rules
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="rule-guard")  # noqa: TID251  # ended by close()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                await self.check()
            except EngineFailed as error:
                log.error("network rules not checked", error=error.message)

    async def check(self) -> None:
        """Put the tables back if one is missing."""
        if not await on_thread(firewall.is_loaded, self._bridge):
            log.error("the network rules were gone; somebody flushed them. They are put back now", bridge=self._bridge)
            await on_thread(firewall.apply, "put back the network rules", self._rules())
