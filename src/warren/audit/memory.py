"""An audit log in memory: the reference for tests of everything that writes to one."""

from warren.model.audit import Event


class MemoryAudit:
    """Keeps every event, sampled ones too; refuses changes when `failure` is set."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.failure: Exception | None = None

    def check(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def record(self, event: Event) -> None:
        self.events.append(event)

    def note(self, event: Event) -> None:
        self.events.append(event)

    def sample(self, event: Event, *, each: bool = False) -> None:
        self.events.append(event)
