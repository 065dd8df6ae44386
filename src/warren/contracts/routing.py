"""Routing: what the gateway asks to find the sandbox behind a request."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Route:
    """A sandbox that takes traffic now.

    address: what to dial. access_token: the guest's, None when it is open; only for signed URLs.
    control_token: for the guest's tunnel. traffic_token: None when every port is public.
    mask_host: replaces Host towards user ports, `${PORT}` stands for the port.
    answers: False while its guest does not answer; nothing is relayed then.
    """

    sandbox_id: str
    address: str
    access_token: str | None
    control_token: str
    traffic_token: str | None = None
    mask_host: str | None = None
    answers: bool = True


class Routes(Protocol):
    def find(self, sandbox_id: str) -> Route | None:
        """The route of a live sandbox; None when there is none. Never blocks: it is on the path of every request."""
        ...

    def all(self) -> Iterable[Route]:
        """Every live sandbox; for signed URLs, which do not name theirs (wire contract 1.6)."""
        ...

    def on_cut(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the id as soon as a sandbox is killed, dies (before its address is reused), falls asleep
        or falls silent: nothing more comes of what is open to it."""
        ...


class Traffic(Protocol):
    """Whom the gateway tells of each request that it relays, by the sandbox's id (or a name that is none, to the API).

    A sandbox that has none open for a while may be put to sleep.
    """

    def enter(self, sandbox_id: str) -> None: ...

    def leave(self, sandbox_id: str) -> None:
        """Once for each `enter`, however the request ended."""
        ...


class Sleepers(Protocol):
    """What the gateway asks when a sandbox has no route: it may only be asleep."""

    async def asleep(self, sandbox_id: str) -> Route | None:
        """A paused sandbox that traffic may wake: its tokens, to be checked before. Its address means nothing."""
        ...

    async def wake(self, sandbox_id: str) -> Route:
        """Resume it, together with whoever else asks, and return its route.

        Raises SandboxNotFound, SandboxChanging, LimitReached, Forbidden, Timeout and what else keeps it from waking.
        """
        ...
