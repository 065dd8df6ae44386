"""Waiting for a fact, with a deadline."""

import asyncio
from collections.abc import Awaitable, Callable

DEADLINE_S = 5.0
PAUSE_S = 0.005


async def eventually(fact: Callable[[], Awaitable[bool]]) -> None:
    """Return as soon as `fact` holds; fail when it still does not after `DEADLINE_S`."""
    async with asyncio.timeout(DEADLINE_S):
        while not await fact():
            await asyncio.sleep(PAUSE_S)
