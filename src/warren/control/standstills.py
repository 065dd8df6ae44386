"""Sandboxes that stand still while they are copied, and go on: nobody asks anything of their guest meanwhile."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from warren.turns import Turns


class Standstills:
    def __init__(self) -> None:
        self._turns = Turns()
        self._still: dict[str, asyncio.Event] = {}

    def __contains__(self, sandbox_id: str) -> bool:
        return sandbox_id in self._still

    @asynccontextmanager
    async def begin(self, sandbox_id: str) -> AsyncGenerator[None]:
        """Around what halts a sandbox and lets it go on, however long that takes; one after another."""
        async with self.prevented(sandbox_id):
            self._still[sandbox_id] = asyncio.Event()
            try:
                yield
            finally:
                self._still.pop(sandbox_id).set()

    @asynccontextmanager
    async def prevented(self, sandbox_id: str) -> AsyncGenerator[None]:
        """Around what has to find its guest at work: begins when a standstill is over, and none begins meanwhile."""
        async with self._turns.of(sandbox_id):
            yield

    async def over(self, sandbox_id: str) -> None:
        """Wait until it moves."""
        while (end := self._still.get(sandbox_id)) is not None:
            await end.wait()
