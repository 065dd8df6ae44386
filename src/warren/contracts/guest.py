"""Guest: what the server asks of the daemon inside a sandbox.

The guest is hostile: every answer is bounded (`limits.GUEST_ANSWER_MAX_BYTES`), every call has a deadline, and
nothing that a guest says is believed about anything but itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from warren.model.observation import LogEntry


@dataclass(frozen=True, slots=True)
class GuestIdentity:
    """What a guest is told before its sandbox is handed out (guestd `POST /init`).

    access_token None leaves the guest open to whoever reaches its port (older clients with `secure: false`).
    control_token guards the control routes from then on.
    """

    sandbox_id: str
    template_id: str
    control_token: str
    access_token: str | None
    hostname: str
    machine_id: str
    default_user: str
    default_workdir: str
    envs: Mapping[str, str] = field(default_factory=dict[str, str])
    dns_servers: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class GuestLogs:
    """Entries after the asked sequence number; `last` is the number to ask with next time."""

    entries: Sequence[LogEntry]
    last: int


class Guest(Protocol):
    """Each method raises Timeout after its deadline and Unavailable when the guest refuses or breaks off."""

    async def init(self, address: str, identity: GuestIdentity, deadline_s: float) -> None:
        """Wait until the guest listens, then give it its identity. Safe to retry with the same identity."""
        ...

    async def logs(self, address: str, control_token: str, after: int) -> GuestLogs:
        """Log entries with a sequence number above `after`, at most `limits.GUEST_LOG_BATCH`. Safe to retry."""
        ...

    async def close(self) -> None:
        """Drop pooled connections."""
        ...
