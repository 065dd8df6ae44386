"""Whether a guest that does not answer is to be called unresponsive. Times come in as arguments: monotonic seconds."""

import enum
from dataclasses import dataclass

from warren.model import limits


class Health(enum.StrEnum):
    """Whether the daemon inside a running sandbox answers. Nothing of a sandbox's life hangs on it."""

    OK = "ok"
    UNRESPONSIVE = "unresponsive"


@dataclass(frozen=True, slots=True)
class Silence:
    """Calls in a row that a guest left unanswered; `since` is when the first of them was made."""

    since: float
    misses: int = 1

    def longer(self) -> "Silence":
        return Silence(self.since, self.misses + 1)

    def is_proof(self, now: float) -> bool:
        """Several calls over a while: one alone may have met a busy machine."""
        return self.misses >= limits.HEALTH_MISSES and now - self.since >= limits.HEALTH_SILENCE_S
