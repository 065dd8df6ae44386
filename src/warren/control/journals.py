"""What guests say of their sandboxes: fetched from each in order, and kept in the store."""

import structlog

from warren.contracts.guest import Guest
from warren.contracts.routing import Route
from warren.contracts.store import LogQuery, Store
from warren.control.live import LiveSandboxes
from warren.model.errors import WarrenError
from warren.turns import Turns

log = structlog.get_logger(__name__)


class Journals:
    """Remembers how far each guest's journal was read, also while it sleeps: its memory counts on when it wakes."""

    def __init__(self, *, guest: Guest, store: Store, live: LiveSandboxes) -> None:
        self._guest, self._store, self._live = guest, store, live
        self._seen: dict[str, int] = {}
        self._turns = Turns()

    async def fetch(self, route: Route) -> None:
        """Raises what the store raises; a guest that gives nothing is asked again next time."""
        sandbox_id = route.sandbox_id
        if not route.answers:
            return
        async with self._turns.of(sandbox_id):
            after = self._seen.get(sandbox_id)
            try:
                fetched = await self._guest.logs(route.address, route.control_token, after or 0)
            except WarrenError as error:
                log.debug("guest gives no log", sandbox=sandbox_id, error=error.message)
                return
            entries = fetched.entries
            if after is None:  # a restarted server has read some of them before
                stored = await self._store.logs(sandbox_id, LogQuery(limit=1, ascending=False))
                entries = [entry for entry in entries if not stored or entry.at > stored[0].at]
            self._seen[sandbox_id] = fetched.last
            if entries:
                await self._store.add_logs(sandbox_id, entries)

    def begin_anew(self, sandbox_id: str) -> None:
        """The guest has booted, and counts from the start."""
        self._seen[sandbox_id] = 0

    def forget_gone(self) -> None:
        for sandbox_id in list(self._seen):
            if self._live.find(sandbox_id) is None and not self._live.is_asleep(sandbox_id):
                del self._seen[sandbox_id]
