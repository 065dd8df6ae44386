"""One at a time, for each of many names."""

import asyncio
from weakref import WeakValueDictionary


class Turns:
    """A lock for each name that somebody holds or waits for; the others take no memory."""

    def __init__(self) -> None:
        self._locks = WeakValueDictionary[str, asyncio.Lock]()

    def of(self, name: str) -> asyncio.Lock:
        """First come, first served."""
        return self._locks.setdefault(name, asyncio.Lock())
