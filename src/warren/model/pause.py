"""How a sandbox sleeps, and when it falls asleep or wakes by itself."""

import enum
from dataclasses import dataclass
from datetime import datetime


class PauseKind(enum.StrEnum):
    """How a paused sandbox is kept. FROZEN: its processes are stopped in this machine's memory, and end with it."""

    FROZEN = "frozen"
    MEMORY = "memory"
    FILESYSTEM = "filesystem"


class PauseCause(enum.StrEnum):
    OWNER = "owner"
    DEADLINE = "deadline"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Pause:
    """How one sandbox sleeps. `checkpoint_id` is None for a frozen one; `bytes` is known once it is on disk.

    at: when it began. `guest_silent`: the guest did not answer then, so its memory would bring a silent guest back.
    """

    checkpoint_id: str | None
    kind: PauseKind
    by: PauseCause
    at: datetime
    bytes: int = 0
    guest_silent: bool = False

    @property
    def due_by(self) -> datetime | None:
        """When its sandbox's deadline has to have come: a pause in place of an end needs that, any other does not."""
        return self.at if self.by is PauseCause.DEADLINE else None


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """What happens at the deadline, and on traffic to a paused sandbox.

    auto_pause: pause instead of kill. auto_pause_memory: keep the memory then. auto_resume: traffic wakes it.
    """

    auto_pause: bool = False
    auto_pause_memory: bool = True
    auto_resume: bool = False
