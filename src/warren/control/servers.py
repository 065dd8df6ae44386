"""The servers that share this one's database: its own heartbeat, and an eye on those of the others."""

from dataclasses import replace
from datetime import timedelta

import structlog

from warren.contracts.audit import Audit
from warren.contracts.clock import Clock
from warren.contracts.store import Store
from warren.control.clock import next_turn
from warren.model import limits
from warren.model.audit import Event, Kind, Outcome
from warren.model.errors import Unavailable, WarrenError
from warren.model.observation import Level, LogEntry
from warren.model.sandbox import EndReason
from warren.model.server import Server, Sighting, sighted

log = structlog.get_logger(__name__)

_BEAT = timedelta(seconds=limits.SERVER_BEAT_S)
_HOMES_ASKED_AT_ONCE = 2
"""Lookups for the gateway at the same time: anybody can ask it for made-up ids, and the store has better to do."""


class Servers:
    def __init__(self, *, me: Server, store: Store, clock: Clock, audit: Audit) -> None:
        self._me, self._store, self._clock, self._audit = me, store, clock, audit
        self._others: dict[str, Sighting] = {}
        self._asking = 0

    async def refuse_twin(self) -> None:
        """Raise Unavailable when another server that runs has this identity: the two would end each other's work."""
        before = await self._own_row()
        if before is None:
            return
        await self._clock.sleep_until(self._clock.now() + 2 * _BEAT)
        after = await self._own_row()
        if after is not None and after.seen_at != before.seen_at:
            raise Unavailable(
                f"cannot start: the server {after.name!r} runs with the same identity; "
                "remove the file server-id from the state folder that is a copy"
            )

    async def register(self) -> None:
        """Take this server's place in the store."""
        await self._store.register_server(replace(self._me, seen_at=self._clock.now()))

    async def run(self) -> None:
        """Beat and look, until cancelled."""
        while True:
            started = self._clock.now()
            try:
                await self._beat_and_look()
            except WarrenError as error:
                log.warning("cannot beat; trying again", error=error.message)
            except Exception:
                log.exception("heartbeat failed; it goes on")
            await next_turn(self._clock, started, _BEAT)

    async def name_of_home(self, sandbox_id: str) -> str | None:
        """The name of another server that has this sandbox; None when there is none, or too many ask at once."""
        if not self._others or self._asking >= _HOMES_ASKED_AT_ONCE:
            return None
        self._asking += 1
        try:
            home = await self._store.home(sandbox_id)
        except WarrenError as error:
            log.debug("cannot look for a sandbox elsewhere", error=error.message)
            return None
        finally:
            self._asking -= 1
        return None if home is None or home.id == self._me.id else home.name

    async def _own_row(self) -> Server | None:
        return next((server for server in await self._store.servers() if server.id == self._me.id), None)

    async def _beat_and_look(self) -> None:
        now = self._clock.now()
        await self._store.beat(self._me.id, now)
        servers = await self._store.servers()
        self._others = sighted(self._others, (server for server in servers if server.id != self._me.id))
        for sighting in self._others.values():
            if sighting.is_away:
                await self._give_up(sighting.server)

    async def _give_up(self, server: Server) -> None:
        now = self._clock.now()
        for sandbox in await self._store.give_up(server, now):
            log.warning("sandbox lost", sandbox=sandbox.id, server=server.name)
            self._audit.note(Event(Kind.SANDBOX_END, Outcome.OBSERVED, EndReason.LOST, f"sandbox:{sandbox.id}"))
            message = f"sandbox ended: {EndReason.LOST}; its server {server.name} is away"
            entry = LogEntry(now, Level.WARN, "warren", message, {"reason": EndReason.LOST})
            await self._store.add_logs(sandbox.id, [entry])
