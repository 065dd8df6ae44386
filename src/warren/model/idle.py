"""The idle ladder: how deep a sandbox that nobody uses may sleep, by how long it has been idle."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from warren.model.errors import BadRequest


class Step(enum.IntEnum):
    """Each saves more than the one before, and takes longer to wake from."""

    RUNNING = 0
    FROZEN = 1
    """Its processes stand still: no CPU."""
    RECLAIMED = 2
    """And the memory that it can do without is taken back."""
    ON_DISK = 3
    """Memory and files are on disk; the machine has the rest back."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """Seconds of idleness after which each step is taken; None for a step that is left out."""

    freeze_s: int | None = None
    reclaim_s: int | None = None
    disk_s: int | None = None

    def step_after(self, idle: timedelta) -> Step:
        """The deepest step that this much idleness has earned."""
        seconds = idle.total_seconds()
        earned = Step.RUNNING
        for step, after in (
            (Step.FROZEN, self.freeze_s),
            (Step.RECLAIMED, self.reclaim_s),
            (Step.ON_DISK, self.disk_s),
        ):
            if after is not None and seconds >= after:
                earned = step
        return earned


def parse_ladders(words: Sequence[str]) -> Mapping[str, Ladder]:
    """Template name -> its ladder, from words such as `base=60/300/1800` or `*=600/-/-`. Raises BadRequest."""
    found: dict[str, Ladder] = {}
    for word in words:
        name, equals, steps = word.partition("=")
        parts = steps.split("/")
        if not (name and equals) or len(parts) != len(Step) - 1 or name in found:
            raise _unreadable(word)
        found[name] = _ladder(parts, word)
    return found


def _ladder(parts: Sequence[str], word: str) -> Ladder:
    if not all(part == "-" or (part.isascii() and part.isdecimal() and int(part) > 0) for part in parts):
        raise _unreadable(word)
    freeze, reclaim, disk = (None if part == "-" else int(part) for part in parts)
    given = [after for after in (freeze, reclaim, disk) if after is not None]
    if given != sorted(given):
        raise BadRequest(f"cannot use WARREN_IDLE entry {word!r}: each step comes after the one before it")
    return Ladder(freeze, reclaim, disk)


def _unreadable(word: str) -> BadRequest:
    return BadRequest(
        f"cannot use WARREN_IDLE entry {word!r}: write template=freeze/reclaim/disk in seconds, `-` for a step to "
        "leave out, `*` for every other template; each template once"
    )
