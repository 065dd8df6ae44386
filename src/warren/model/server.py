"""Servers that share a store, and how one of them tells that another is away."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from warren.model import limits


@dataclass(frozen=True, slots=True)
class Server:
    """One `warren serve`. `name` is for people; `seen_at` is its heartbeat, by its own clock."""

    id: str
    name: str
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Sighting:
    """What an observer knows of another server: its last heartbeat, and how many looks ago that was new."""

    server: Server
    unchanged: int = 0

    @property
    def is_away(self) -> bool:
        return self.unchanged >= limits.SERVER_LOOKS_BEFORE_AWAY


def sighted(before: Mapping[str, Sighting], servers: Iterable[Server]) -> dict[str, Sighting]:
    """What is known after another look, by the server's id.

    Looks are counted, and clocks never compared: those of two machines differ, and one may jump by hours.
    """
    return {
        server.id: Sighting(server, before[server.id].unchanged + 1)
        if server.id in before and before[server.id].server.seen_at == server.seen_at
        else Sighting(server)
        for server in servers
    }
